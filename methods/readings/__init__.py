"""Where the values of each method's three readings come from, one file per method: data that no method imports."""
