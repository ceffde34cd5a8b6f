"""kuiper's command line from a checkout: python manager.py submit configs/quickstart.yml --follow"""

from kuiper.cli import main

if __name__ == "__main__":
    main()
