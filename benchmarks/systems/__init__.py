"""Other systems of the field, written anew by what their papers and public code fix, behind one interface."""
