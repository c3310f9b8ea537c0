"""`python -m cascaded`."""

from cascaded.cli import main

if __name__ == "__main__":
    main()
