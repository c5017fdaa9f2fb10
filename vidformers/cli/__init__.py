"""The command lines of the installed package; tools/ has the same for a checkout."""
