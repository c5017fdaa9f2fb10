"""What the scripts of data_prep/ share: which files, worker processes, resumable reports, writing lists."""
