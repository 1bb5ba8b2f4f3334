"""`python -m pistributer`: the command line, also where the script is not on the PATH."""

from pistributer.cli import main

if __name__ == "__main__":
    main()
