"""The ablation switches of the methods, one file per method: data beside the methods, which no method imports."""
