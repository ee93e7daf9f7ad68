"""Predict by retrieval: the mean of the k training spots nearest in angle, weighted by distance to the power of -2."""

import os
import sys

import clone
import numpy as np
import torch
from stbench_exchange import Task


def main():
    task = Task(sys.argv[1])
    torch.set_num_threads(task.threads)
    device = clone.use(task.device)
    net = clone.network({**task.settings, "weights": "random"}, len(task.genes))  # which the file replaces
    net.load_state_dict(torch.load(os.path.join(task.model, "network.pt"), map_location="cpu"))
    net.to(device).eval()
    bank = np.load(os.path.join(task.model, "keys.npz"))
    keys, values = (torch.from_numpy(bank[name]).to(device) for name in ("keys", "values"))
    unit = torch.nn.functional.normalize
    k = min(task.settings["k"], len(keys))
    for slide in task.slides:
        query = clone.queries(net, slide, device)
        nearest = (unit(query) @ unit(keys).T).topk(k).indices
        distance = torch.linalg.norm(query[:, None] - keys[nearest], dim=2).clamp_min(1e-6)
        weight = distance**-2
        weight /= weight.sum(dim=1, keepdim=True)
        slide.write((weight[:, :, None] * values[nearest]).sum(dim=1).cpu().numpy())


if __name__ == "__main__":
    main()
