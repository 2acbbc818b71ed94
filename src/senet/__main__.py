"""`python -m senet` is the command line."""

from senet.utils.isolation import leave_working_directory

if __name__ == "__main__":
    leave_working_directory()  # before anything else is imported

    from senet.cli import main

    main()
