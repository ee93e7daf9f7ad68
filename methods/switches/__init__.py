"""The ablation switches of the methods, one file a method: data beside the methods, which no method imports."""
