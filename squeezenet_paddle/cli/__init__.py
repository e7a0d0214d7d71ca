"""The command line: the only home of argparse and of flags in messages."""
