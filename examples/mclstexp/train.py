"""Train the authors' network with the authors' loop, epoch by epoch, and keep the keys of the training spots."""

import os
import sys

import clone
import numpy as np
import torch
from PIL import Image
from stbench_exchange import Task
from torchvision import transforms

AUGMENT = transforms.Compose(
    [
        transforms.ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5),
        transforms.RandomHorizontalFlip(),
        transforms.RandomRotation(180),
        transforms.ToTensor(),
    ]
)


class Spots(torch.utils.data.Dataset):
    """The training spots as the authors' loop takes them."""

    def __init__(self, slides):
        self.places = [(slide, spot) for slide in slides for spot in range(len(slide.spots))]

    def __len__(self):
        return len(self.places)

    def __getitem__(self, index):
        slide, spot = self.places[index]
        return {
            "image": AUGMENT(Image.fromarray(clone.image(slide, spot))),
            "expression": torch.from_numpy(slide.target[spot]),
            "position": torch.from_numpy(slide.array_xy[spot]).float(),
        }


def main():
    task = Task(sys.argv[1])
    torch.set_num_threads(task.threads)
    device = clone.use(task.device)
    torch.manual_seed(task.seed)
    net = clone.network(task.settings, len(task.genes)).to(device)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-4, weight_decay=1e-3)  # as their main() sets it
    kept = os.path.join(task.checkpoint, "epoch.pt")
    done = 0
    if os.path.exists(kept):
        state = torch.load(kept, map_location="cpu")
        net.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["random"])
        done = state["epoch"]
    spots, size = Spots(task.slides), task.settings["batch_size"]
    # a last batch of one spot has nothing to contrast, and batch normalisation refuses it where windows are small
    alone = len(spots) > size and len(spots) % size == 1
    batches = torch.utils.data.DataLoader(spots, batch_size=size, shuffle=True, drop_last=alone)
    losses = []
    net.register_forward_hook(lambda module, given, loss: losses.append(loss.item()))
    for epoch in range(done + 1, task.settings["epochs"] + 1):
        net.train()
        losses.clear()
        clone.train_epoch(net, batches, optimiser, epoch)
        state = {"network": net.state_dict(), "optimiser": optimiser.state_dict()}
        torch.save({**state, "random": torch.get_rng_state(), "epoch": epoch}, kept + ".new")
        os.replace(kept + ".new", kept)
        task.log(epoch, loss=np.mean(losses))
        task.progress(epoch, task.settings["epochs"], "epochs")
    net.eval()
    torch.save(net.state_dict(), os.path.join(task.model, "network.pt"))
    np.savez(
        os.path.join(task.model, "keys.npz"),
        keys=torch.cat([clone.keys(net, slide, device) for slide in task.slides]).cpu().numpy(),
        values=np.concatenate([slide.target for slide in task.slides]),
    )


if __name__ == "__main__":
    main()
