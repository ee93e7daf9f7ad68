"""SpatialData stores (Zarr), opened by the library of that name: the extra ``spatialdata``."""
