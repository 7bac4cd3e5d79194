// Open packages in transformers.js with the lines that onnxfuse printed: `node transformers_reader.mjs ASKED ANSWERS`.
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const { AutoModel, Tensor, env, pipeline } = createRequire(`${process.env.MODULES}/`)("@huggingface/transformers");
env.allowRemoteModels = false;
env.localModelPath = process.cwd();

const tensor = ({ type, dims, data }) =>
  new Tensor(type, type === "int64" ? BigInt64Array.from(data, BigInt) : Float32Array.from(data), dims);

const plain = ({ type, dims, data }) => ({ type, dims, data: Array.from(data, Number) });

async function answer({ use, cases, texts, options }) {
  const opened = await eval(`(async () => ${use})()`);
  const model = opened.model ?? opened;
  const found = [];
  for (const feeds of cases) {
    const inputs = Object.fromEntries(Object.entries(feeds).map(([name, value]) => [name, tensor(value)]));
    const outputs = Object.entries(await model(inputs)).filter(([, value]) => value instanceof Tensor);
    found.push(Object.fromEntries(outputs.map(([name, value]) => [name, plain(value)])));
  }
  const answered = texts.length ? await opened(texts, options ?? {}) : [];
  return { cases: found, texts: answered.tolist ? answered.tolist() : answered, class: model.constructor.name };
}

const answers = [];
for (const asked of JSON.parse(readFileSync(process.argv[2], "utf-8"))) answers.push(await answer(asked));
writeFileSync(process.argv[3], JSON.stringify(answers));
