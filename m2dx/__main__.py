"""`python -m m2dx` is the command line, for torchrun -m m2dx."""

from m2dx.cli import main

main()
