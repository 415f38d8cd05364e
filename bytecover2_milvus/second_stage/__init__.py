"""The second stage of a search: matches are aligned, judged, ordered and explained."""
