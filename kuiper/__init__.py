"""kuiper: one experiment description, run as a simulation or as a real job."""

__version__ = "0.1.0"
