"""The modules that representations make of a network: what needs torch of them, one file each."""
