"""What set two runs, or two versions in one run, apart."""
