import { Utf8Check } from '../base/utf8.js';
import { badData } from './data-error.js';

/** Bytes at the start of a file that say what it is. */
export const HEAD_BYTES = 64 << 10;

export type DataType = 'text' | 'jsonl';

const UNPACK = 'unpack it first';
const TO_JSONL = 'write its texts as {"text": "..."} lines and set dataset.type=jsonl';
const INDEXED = 'set dataset.type=indexed and dataset.path to the path without .bin and .idx';
const TOKENS = 'write its tokens as {"input_ids": [...]} lines and set dataset.type=jsonl';
const NO_TEXT = 'dataset.path must name a text file, or a file of JSON lines';
const TO_UTF8 = 'convert it to UTF-8: iconv -f UTF-16 -t UTF-8 FILE > NEW';

interface Kind {
  readonly what: string;
  readonly hint: string;
  readonly endings: readonly string[];
  /** How such a file begins (or what it has at `at`), byte by byte as latin-1. */
  readonly magic?: readonly (string | { readonly at: number; readonly bytes: string })[];
}

/**
 * What is taken for data by mistake. A file is known by its first bytes, or by its name where that names nothing else
 * (a corpus in Portuguese may end in .pt, one in Somali in .so).
 */
const KINDS: readonly Kind[] = [
  { what: 'a gzip file', hint: `${UNPACK}: gunzip -k FILE`, endings: ['gz', 'tgz'], magic: ['\x1f\x8b'] },
  { what: 'a Zstandard file', hint: `${UNPACK}: unzstd FILE`, endings: ['zst', 'zstd'], magic: ['\x28\xb5\x2f\xfd'] },
  { what: 'an xz file', hint: `${UNPACK}: unxz -k FILE`, endings: ['xz', 'lzma'], magic: ['\xfd7zXZ\0'] },
  {
    what: 'a bzip2 file',
    hint: `${UNPACK}: bunzip2 -k FILE`,
    endings: ['bz2'],
    magic: ['BZh91AY&SY', 'BZh61AY&SY', 'BZh11AY&SY'],
  },
  { what: 'an LZ4 file', hint: `${UNPACK}: unlz4 FILE`, endings: ['lz4'], magic: ['\x04\x22\x4d\x18'] },
  { what: 'a tar archive', hint: `${UNPACK}: tar xf FILE`, endings: ['tar'], magic: [{ at: 257, bytes: 'ustar' }] },
  { what: 'a NumPy file', hint: TOKENS, endings: ['npy', 'npz'], magic: ['\x93NUMPY'] },
  {
    what: 'an office document or book',
    hint: TO_JSONL,
    endings: ['docx', 'xlsx', 'pptx', 'odt', 'epub', 'mobi'],
    magic: ['\xd0\xcf\x11\xe0'],
  },
  {
    what: 'weights of a model',
    hint: NO_TEXT,
    endings: ['pth', 'ckpt', 'gguf', 'onnx', 'safetensors'],
    magic: ['GGUF'],
  },
  { what: 'a zip archive', hint: `${UNPACK}: unzip FILE`, endings: ['zip'], magic: ['PK\x03\x04', 'PK\x05\x06'] },
  {
    what: 'a 7-Zip or RAR archive',
    hint: UNPACK,
    endings: ['7z', 'rar'],
    magic: ['7z\xbc\xaf\x27\x1c', 'Rar!\x1a\x07'],
  },
  { what: 'a Parquet file', hint: TO_JSONL, endings: ['parquet'], magic: ['PAR1', 'PARE'] },
  {
    what: 'an Arrow file',
    hint: TO_JSONL,
    endings: ['arrow', 'feather'],
    magic: ['ARROW1', '\xff\xff\xff\xff', 'FEA1'],
  },
  {
    what: 'an Avro, ORC or record file',
    hint: TO_JSONL,
    endings: ['avro', 'orc', 'tfrecord', 'msgpack'],
    magic: ['Obj\x01', 'ORC'],
  },
  { what: "the index of Megatron's token file", hint: INDEXED, endings: ['idx'], magic: ['MMIDIDX\0\0', 'TNTIDX\0\0'] },
  { what: 'a binary token file', hint: INDEXED, endings: ['bin'] },
  {
    what: 'a pickle',
    hint: TO_JSONL,
    endings: ['pkl', 'pickle'],
    magic: ['\x80\x02', '\x80\x03', '\x80\x04', '\x80\x05'],
  },
  {
    what: 'a database',
    hint: TO_JSONL,
    endings: ['db', 'sqlite', 'sqlite3', 'h5', 'hdf5', 'mdb'],
    magic: ['SQLite format 3\0', '\x89HDF'],
  },
  { what: 'a PDF', hint: TO_JSONL, endings: ['pdf'], magic: ['%PDF-'] },
  {
    what: 'an image',
    hint: NO_TEXT,
    endings: ['png', 'jpg', 'jpeg', 'gif', 'webp', 'bmp', 'tif', 'tiff', 'ico', 'heic'],
    magic: ['\x89PNG', '\xff\xd8\xff', 'GIF87a', 'GIF89a', 'II*\0', 'MM\0*'],
  },
  {
    what: 'sound or video',
    hint: NO_TEXT,
    endings: ['wav', 'mp3', 'flac', 'ogg', 'mp4', 'mkv', 'avi', 'mov', 'webm'],
    magic: ['RIFF', 'ID3', 'fLaC', 'OggS', '\x1a\x45\xdf\xa3', { at: 4, bytes: 'ftyp' }],
  },
  {
    what: 'a program',
    hint: NO_TEXT,
    endings: ['exe', 'dll', 'dylib', 'pyc', 'wasm'],
    magic: ['\x7fELF', 'MZ\x90\0', '\0asm', '\xca\xfe\xba\xbe', '\xcf\xfa\xed\xfe', '!<arch>\n'],
  },
  {
    what: 'UTF-32',
    hint: TO_UTF8.replaceAll('UTF-16', 'UTF-32'),
    endings: [],
    magic: ['\xff\xfe\0\0', '\0\0\xfe\xff'],
  },
  { what: 'UTF-16', hint: TO_UTF8, endings: [], magic: ['\xff\xfe', '\xfe\xff'] },
];

/**
 * Refuses a file that is not what `type` reads, by how it begins and by its name: it would be trained on byte by byte,
 * or fail with a message that does not say what it is.
 * @throws MbridgeError MB_DATA_FORMAT, exit 7
 */
export function refuseForeign(path: string, head: Uint8Array, type: DataType): void {
  const start = Buffer.from(head.buffer, head.byteOffset, head.length).toString('latin1');
  const refuse = (found: string, hint: string): never => {
    throw badData('MB_DATA_FORMAT', path, found, hint);
  };
  refuseKinds(path, head, refuse);
  const ending = endingOf(path);
  if (type === 'text') refuseJson(start, ending, refuse);
}

function endingOf(path: string): string {
  return /\.([a-z\d]+)$/i.exec(path)?.[1]?.toLowerCase() ?? '';
}

/** Calls `refuse` for a file that is no text, by how it begins and by its name. */
export function refuseKinds(path: string, head: Uint8Array, refuse: (found: string, hint: string) => never): void {
  const start = Buffer.from(head.buffer, head.byteOffset, head.length).toString('latin1');
  const ending = endingOf(path);
  const ofName = KINDS.find(({ endings }) => endings.includes(ending));
  const nul = start.indexOf('\0');
  // A text may begin with ORC or RIFF.
  const isText = nul < 0 && new Utf8Check().push(head) < 0;
  const ofBytes = KINDS.find(({ magic }) => magic?.some((mark) => begins(start, mark) && !(isText && isPlain(mark))));
  // A zip may be a document, an unpacked file may have kept its name: both say more together.
  if (ofBytes !== undefined) {
    const { what, hint } = ofBytes.what === 'a zip archive' && ofName !== undefined ? ofName : ofBytes;
    refuse(`is ${what}`, hint);
  }
  if (nul >= 0 && ofName === undefined) {
    if (isWide(start)) refuse('is UTF-16 without a mark', TO_UTF8.replace('UTF-16', 'UTF-16LE'));
    refuse(`holds a NUL at byte ${nul}: it is no text`, NO_TEXT);
  }
  if (ofName !== undefined)
    refuse(`is ${ofName.what} by its name (.${ending})`, `${ofName.hint}, or give the file another name`);
}

function refuseJson(start: string, ending: string, refuse: (found: string, hint: string) => never): void {
  const toJsonl = 'set dataset.type=jsonl';
  if (['jsonl', 'ndjson'].includes(ending)) refuse('is a file of JSON lines by its name', toJsonl);
  if (ending === 'json') refuse('is JSON by its name', `write one object a line (jq -c) and ${toJsonl}`);
  const lines = start.split('\n', 2).filter((line) => line.trim() !== '');
  const areObjects = lines.length > 0 && lines.every(isObject);
  if (areObjects || /^\s*\{\s*"(text|input_ids)"\s*:/.test(start)) {
    refuse('holds JSON lines', toJsonl);
  }
}

function isObject(line: string): boolean {
  try {
    return /^\s*\{/.test(line) && typeof JSON.parse(line) === 'object';
  } catch {
    return false; // a text may begin with a brace
  }
}

function isPlain(mark: string | { readonly bytes: string }): boolean {
  return /^[\x20-\x7e\n]*$/.test(typeof mark === 'string' ? mark : mark.bytes);
}

function begins(start: string, mark: string | { readonly at: number; readonly bytes: string }): boolean {
  return typeof mark === 'string' ? start.startsWith(mark) : start.startsWith(mark.bytes, mark.at);
}

/** Whether every other byte is a NUL and the rest can be read, nearly everywhere: UTF-16 of a Latin script. */
function isWide(start: string): boolean {
  const pairs = Math.floor(Math.min(start.length, 1024) / 2);
  const zeros = [0, 0];
  let plain = 0;
  for (let i = 0; i < 2 * pairs; i++) {
    if (start[i] === '\0') zeros[i % 2]!++;
    else if (/[\t\n\r\x20-\x7e]/.test(start[i] as string)) plain++;
  }
  return Math.max(...zeros) > 0.6 * pairs && plain > 0.6 * pairs;
}
