"""A target from one folder outside the package, with an operator of its own: written, proven, run, measured, loaded."""

import json
import shutil
import subprocess

import numpy as np
import onnx_ir as ir
import pytest

import onnxfuse
from onnxfuse import plugins
from onnxfuse.errors import ModelError
from onnxfuse.io import onnx_file
from tests.conftest import ops, parse

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")

TARGET = {"name": "acme", "opset": 20, "why": "an example", "gelu": "AcmeGelu"}

LOWERING = '''
"""Gelu as the operator of Acme's own: exact, float32."""

from onnxfuse.rewrite import Lowering, Rule
from onnxfuse.rewrite.analysis import ValueInfo
from onnxfuse.rewrite.shapes import shape_function


def before(op, x, approximate):
    return op.Gelu(x, approximate=approximate)


def guard(match):
    match.need(match["approximate"] != "tanh", "Acme's Gelu is exact", match.output)
    match.need(match.need_type("x").name == "FLOAT", "Acme's Gelu is float32", match["x"])


def after(op, x, **_):
    return op.AcmeGelu(x, _domain="com.acme")


@shape_function("AcmeGelu", domain="com.acme")
def shape(analysis, node, output):
    info = analysis[node.inputs[0]]
    return ValueInfo(info.dtype, info.shape)


ACME_GELU = Lowering("gelu", "AcmeGelu", (Rule("gelu-acme", before, guard, after),))
'''

LIBRARY = """
/* com.acme.AcmeGelu: y = x/2 * (1 + erf(x / sqrt(2))). What is needed of ONNX Runtime's C interface is declared here: OrtApi is a
   table of functions whose places never change, OrtCustomOp as in version 8.
   Source: onnxruntime_c_api.h (OrtApiBase, OrtApi, OrtCustomOp). */
#include <math.h>
#include <stddef.h>
#include <stdint.h>

typedef void *(*Function)();
typedef struct { const Function *(*GetApi)(uint32_t version); const char *(*GetVersionString)(void); } OrtApiBase;
enum { CreateCustomOpDomain = 26, CustomOpDomain_Add = 27, AddCustomOpDomain = 28, GetTensorMutableData = 51,
       GetDimensionsCount = 61, GetDimensions = 62, GetTensorShapeElementCount = 64, GetTensorTypeAndShape = 65,
       KernelContext_GetInput = 90, KernelContext_GetOutput = 91, ReleaseTensorTypeAndShapeInfo = 99 };
enum { FLOAT = 1 };
static const Function *ort;

typedef struct CustomOp {
  uint32_t version;
  void *(*CreateKernel)(const struct CustomOp *, const Function *, const void *);
  const char *(*GetName)(const struct CustomOp *);
  const char *(*GetExecutionProviderType)(const struct CustomOp *);
  int (*GetInputType)(const struct CustomOp *, size_t);
  size_t (*GetInputTypeCount)(const struct CustomOp *);
  int (*GetOutputType)(const struct CustomOp *, size_t);
  size_t (*GetOutputTypeCount)(const struct CustomOp *);
  void (*KernelCompute)(void *, void *);
  void (*KernelDestroy)(void *);
  int (*GetInputCharacteristic)(const struct CustomOp *, size_t);
  int (*GetOutputCharacteristic)(const struct CustomOp *, size_t);
} CustomOp;

static void *create(const CustomOp *op, const Function *api, const void *info) { return (void *)op; }
static void destroy(void *kernel) {}
static const char *name(const CustomOp *op) { return "AcmeGelu"; }
static const char *provider(const CustomOp *op) { return NULL; }
static int type(const CustomOp *op, size_t index) { return FLOAT; }
static size_t one(const CustomOp *op) { return 1; }
static int required(const CustomOp *op, size_t index) { return 0; }

static void compute(void *kernel, void *context) {
  void *input, *output, *shape;
  float *x, *y;
  size_t rank, count;
  int64_t sizes[16];
  ort[KernelContext_GetInput](context, (size_t)0, &input);
  ort[GetTensorTypeAndShape](input, &shape);
  ort[GetDimensionsCount](shape, &rank);
  ort[GetDimensions](shape, sizes, rank);
  ort[GetTensorShapeElementCount](shape, &count);
  ort[ReleaseTensorTypeAndShapeInfo](shape);
  ort[KernelContext_GetOutput](context, (size_t)0, sizes, rank, &output);
  ort[GetTensorMutableData](input, &x);
  ort[GetTensorMutableData](output, &y);
  for (size_t i = 0; i < count; ++i) y[i] = SCALE * x[i] * (1.0f + erff(x[i] * 0.70710678f));
}

static const CustomOp GELU = {8, create, name, provider, type, one, type, one, compute, destroy, required, required};

void *RegisterCustomOps(void *options, const OrtApiBase *base) {
  void *domain, *status;
  ort = base->GetApi(1);
  if ((status = ort[CreateCustomOpDomain]("com.acme", &domain))) return status;
  if ((status = ort[CustomOpDomain_Add](domain, &GELU))) return status;
  return ort[AddCustomOpDomain](options, domain);
}
"""


def made(folder, scale="0.5f", domain="com.acme"):
    """A target's folder: what is chosen, how it is written, and what runs it."""
    folder.mkdir()
    (folder / "target.json").write_text(json.dumps(TARGET))
    (folder / "gelu.py").write_text(LOWERING.replace("com.acme", domain))
    source = folder.with_suffix(".c")
    source.write_text(LIBRARY.replace("com.acme", domain))
    library = folder / f"libacme{plugins.SHARED}"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-w", f"-DSCALE={scale}", source, "-o", library, "-lm"], check=True)
    return folder


@pytest.fixture(scope="module")
def acme(tmp_path_factory):
    return made(tmp_path_factory.mktemp("targets") / "acme")


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    text = "g (float[B,4] x) => (float[B,4] y) <float[4] w = {1, 2, 3, 4}> { p = Mul(x, w)  q = Gelu(p)  y = Add(q, w) }"
    onnx_file.save(parse(text, opset=20), path)
    return path


X = np.array([[0.1, -0.2, 0.3, 0.0]], np.float32)


def test_its_operator_is_written_proven_and_loaded(acme, model, cli, tmp_path):
    result = cli("optimize", model, "--target", acme, "--json")
    assert result.returncode == 0, result.stderr
    step = json.loads(result.stdout)
    assert (step["target"], step["parity"]["passed"], step["trace"]["rules"]) == ("acme", True, {"gelu-acme": 1})
    assert (step["trace"]["proven"], step["trace"]["unproven"], step["trace"]["rejected"]) == (1, {}, {})
    written = ir.load(tmp_path / "model_optimized.onnx")
    assert ops(written) == ["AcmeGelu", "Add", "Mul"]
    assert written.opset_imports["com.acme"] == 1
    wanted = onnxfuse.load(model)(x=X)["y"]
    got = onnxfuse.load(tmp_path / "model_optimized.onnx", target=acme)(x=X)["y"]
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_other_verbs_run_it_where_the_folder_is_named(acme, model, cli, tmp_path, monkeypatch):
    """By the target's own name too; memory is measured in a process of its own."""
    monkeypatch.setenv(plugins.VARIABLE, str(acme))
    assert cli("optimize", model, "--target", "acme").returncode == 0
    assert cli("check", model, "model_optimized.onnx").returncode == 0
    result = cli("benchmark", model, "model_optimized.onnx", "--rounds", "2", "--json")
    assert result.returncode == 0, result.stderr
    row = json.loads(result.stdout)["results"][1]
    assert row["parity"]["passed"] and row["peak_memory"] > 0


def test_nothing_is_loaded_that_nobody_named(acme, model, cli, tmp_path):
    """Whatever a model says: its libraries would run as code."""
    assert cli("optimize", model, "--target", acme, "-o", acme / "beside.onnx").returncode == 0
    wanted = rf"beside\.onnx has operators of target 'acme', which are in libacme{plugins.SHARED}; give that target's folder: "
    with pytest.raises(ModelError, match=wanted):
        onnxfuse.load(acme / "beside.onnx")
    result = cli("check", model, acme / "beside.onnx")
    assert result.returncode == 3
    assert "AcmeGelu" in result.stderr and "name the folder that brings it in ONNXFUSE_PLUGINS" in result.stderr


def test_an_operator_that_computes_something_else_is_not_written(model, cli, tmp_path):
    result = cli("optimize", model, "--target", made(tmp_path / "wrong", "0.51f", "com.wrong"), "--json")
    assert result.returncode == 0, result.stderr
    assert list(json.loads(result.stdout)["trace"]["rejected"]) == ["gelu-acme"]
    assert "AcmeGelu" not in ops(ir.load(tmp_path / "model_optimized.onnx"))


def test_its_variant_is_known_in_its_folder_alone(acme, model, cli, tmp_path):
    (tmp_path / "stray.json").write_text(json.dumps(TARGET))
    result = cli("optimize", model, "--target", "stray.json")
    assert result.returncode == 2
    assert "gelu is 'AcmeGelu', wanted one of Gelu, BiasGelu, elementwise" in result.stderr
    (tmp_path / "empty").mkdir()
    result = cli("optimize", model, "--target", "empty")
    assert result.returncode == 2
    assert "empty is no target: it has no target.json" in result.stderr


def test_a_library_that_cannot_be_loaded_is_named(acme, model, cli):
    library = acme / f"libacme{plugins.SHARED}"
    library.write_text("no library")
    result = cli("optimize", model, "--target", acme)
    assert result.returncode == 2, result.stderr
    assert f"the library {library} cannot be loaded: " in result.stderr
