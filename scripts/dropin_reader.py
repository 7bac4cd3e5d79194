"""The pipeline for questions of transformers 4.57, on an original and on what was accelerated: measure_dropin.py starts it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import transformers

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import onnxfuse  # noqa: E402


def main() -> int:
    asked, told = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    plan = json.loads(asked.read_text())
    original = plan["models"]["original"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(original)
    found = {}
    for name, place in plan["models"].items():
        kind = transformers.AutoModelForQuestionAnswering
        model = kind.from_pretrained(place).eval() if place == original else onnxfuse.load_torch(place, threads=1)
        run = transformers.pipeline("question-answering", model=model, tokenizer=tokenizer)
        pairs = [{"question": question, "context": context} for question, context in plan["pairs"]]
        found[name] = {batch: list(run(pairs, batch_size=batch)) for batch in plan["batches"]}
    told.write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
