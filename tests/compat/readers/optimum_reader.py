"""Open packages in optimum with the lines that onnxfuse printed, and run them: ``python optimum_reader.py ASKED ANSWERS``."""

import json
import sys
from pathlib import Path

import numpy as np
import optimum.onnxruntime
import torch


def answer(asked: dict) -> dict:
    model = eval(asked["use"], {"optimum": optimum})
    cases = []
    for feeds in asked["cases"]:
        tensors = {name: torch.tensor(np.array(each["data"], each["type"]).reshape(each["dims"])) for name, each in feeds.items()}
        found = {name: value.numpy() for name, value in model(**tensors).items()}
        cases.append({name: {"type": str(a.dtype), "dims": a.shape, "data": a.ravel().tolist()} for name, a in found.items()})
    return {"cases": cases, "class": type(model).__name__}


Path(sys.argv[2]).write_text(json.dumps([answer(each) for each in json.loads(Path(sys.argv[1]).read_text())]))
