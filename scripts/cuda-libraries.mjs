// NVIDIA's libraries as pip installs them (`nvidia/<package>/lib`): which of them the CUDA engine opens.
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

/**
 * What the engine opens by name (native/cuda/libs/libs.cc), and what these open in turn. All functions that we call of cuDNN
 * lie in its graph library, which opens the heuristics and the engines; the rest of it (adv, cnn, ops, ext) serves its older
 * interface, and cuBLAS itself is not used beside cuBLASLt.
 */
const WANTED = {
  cuBLASLt: [/^libcublasLt\.so\.1[23]$/],
  NCCL: [/^libnccl\.so\.2$/],
  cuDNN: [
    /^libcudnn\.so\.9$/,
    /^libcudnn_graph\.so\.9$/,
    /^libcudnn_heuristic\.so\.9$/,
    /^libcudnn_engines_\w+\.so\.9$/,
  ],
};

/**
 * Paths of these libraries and of their licences, from `folder`, which holds pip's `nvidia/`; and the names of the libraries
 * that are not all there. They keep their folders: cuDNN looks for cuBLASLt from where it lies.
 */
export function cudaLibraries(folder) {
  const below = (path) => (existsSync(join(folder, path)) ? readdirSync(join(folder, path)).sort() : []);
  const present = below('nvidia').flatMap((name) => {
    const lib = join('nvidia', name, 'lib');
    return below(lib).map((file) => ({ file, path: join(lib, file) }));
  });
  const patterns = Object.values(WANTED).flat();
  const files = present.filter(({ file }) => patterns.some((pattern) => pattern.test(file))).map(({ path }) => path);
  const missing = Object.entries(WANTED)
    .filter(([, wanted]) => wanted.some((pattern) => !present.some(({ file }) => pattern.test(file))))
    .map(([name]) => name);
  const licenses = below('.')
    .filter((name) => /^nvidia_(cublas|nccl|cudnn).*\.dist-info$/.test(name))
    .flatMap((name) => [name, join(name, 'licenses')])
    .flatMap((path) =>
      below(path)
        .filter((file) => /^licen[cs]e/i.test(file) && /\.\w+$/.test(file))
        .map((file) => join(path, file)),
    );
  return { files, licenses, missing };
}
