"""The settings of the networks as plans know them, one record per file, without torch: it is loaded to build one."""
