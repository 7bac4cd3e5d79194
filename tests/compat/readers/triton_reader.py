"""Parse config.pbtxt with Triton's own schema: ``python triton_reader.py ASKED ANSWERS``."""

import json
import sys
from pathlib import Path

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2


def answer(asked: dict) -> dict:
    config = text_format.Parse(Path(asked["config"]).read_text(), model_config_pb2.ModelConfig())
    return json_format.MessageToDict(config, preserving_proto_field_name=True)


Path(sys.argv[2]).write_text(json.dumps([answer(each) for each in json.loads(Path(sys.argv[1]).read_text())]))
