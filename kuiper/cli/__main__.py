"""python -m kuiper.cli"""

from kuiper.cli import main

main()
