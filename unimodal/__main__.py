"""`python -m unimodal` is the command `unimodal`."""

from .command import main

if __name__ == "__main__":
    main()
