"""Open packages in sentence-transformers with the lines that onnxfuse printed: ``python sentence_reader.py ASKED ANSWERS``."""

import json
import sys
from pathlib import Path

import numpy as np
import sentence_transformers
import torch


def answer(asked: dict) -> dict:
    model = eval(asked["use"], {"sentence_transformers": sentence_transformers})
    texts, encoder = asked["texts"], model[0].auto_model
    if isinstance(model, sentence_transformers.CrossEncoder):
        found = model.predict([tuple(pair) for pair in texts], activation_fn=torch.nn.Identity())
    else:
        found = model.encode(texts, batch_size=len(texts))
        found = found.to_dense().numpy() if isinstance(found, torch.Tensor) else found
    cases = []
    for feeds in asked["cases"]:
        tensors = {name: torch.tensor(np.array(each["data"], each["type"]).reshape(each["dims"])) for name, each in feeds.items()}
        read = {name: value.numpy() for name, value in encoder(**tensors).items()}
        cases.append({name: {"type": str(a.dtype), "dims": a.shape, "data": a.ravel().tolist()} for name, a in read.items()})
    return {"cases": cases, "texts": np.asarray(found).tolist(), "class": type(model).__name__}


Path(sys.argv[2]).write_text(json.dumps([answer(each) for each in json.loads(Path(sys.argv[1]).read_text())]))
