"""`python -m headwater` is the console script `headwater`."""

from headwater.cli import main

if __name__ == "__main__":
    main()
