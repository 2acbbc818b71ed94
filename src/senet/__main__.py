"""`python -m senet` is the command line."""

from senet.cli import main

if __name__ == "__main__":
    main()
