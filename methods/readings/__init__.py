"""Where the values of each method's three readings come from, one file a method: data that no method imports."""
