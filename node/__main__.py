"""`python -m p2pnode`: the same as the command `p2pnode`."""

from p2pnode.cli.main import main

if __name__ == "__main__":
    main()
