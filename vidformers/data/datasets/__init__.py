"""Lists of videos (kinetics, folder) and the datasets over them (clips)."""
