/** Size of a file, and the CRC-32 (8 hex digits) of each of its blocks. */
export interface FileRecord {
  readonly bytes: number;
  readonly crc32: readonly string[];
}
