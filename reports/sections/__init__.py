"""Results directories, read into sections: everything that may stand in one table."""
