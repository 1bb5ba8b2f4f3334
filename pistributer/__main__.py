"""`python -m pistributer`: the command line."""

from pistributer.cli import main

if __name__ == "__main__":
    main()
