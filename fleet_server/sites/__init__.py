"""Where terminals stand: areas, sites with opening hours, moved holidays."""
