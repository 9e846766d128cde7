const LONGEST = 1 << 20;

/** What to do about a line that is no JSON object, by what is usually the cause. */
export function jsonHint(bytes: Buffer, place: { readonly first: boolean; readonly last?: boolean }): string {
  const line = bytes.subarray(0, LONGEST).toString('utf8').trim();
  if (place.first && line.startsWith('['))
    return "the file is a JSON array: write one object a line (jq -c '.[]' FILE)";
  if (place.first && /^\{[^}]*$/.test(line) && place.last !== true) {
    return 'the file is an object over several lines: write each object on one line (jq -c . FILE)';
  }
  if (isJsonWithNaN(line)) return 'NaN and Infinity are no JSON: write null, or leave that field out';
  if (/^\{\s*'/.test(line)) return 'this is how Python prints a dict, no JSON: write it with json.dumps';
  if (place.last === true && !line.endsWith('}'))
    return 'the file may have been cut off here: mend or remove its last line';
  return 'mend or remove this line';
}

/** Whether nothing but NaN and Infinity, which Python writes, keeps a line from being JSON. */
function isJsonWithNaN(line: string): boolean {
  const without = line.replace(/"(?:[^"\\]|\\.)*"|\bNaN\b|-?\bInfinity\b/g, (part) =>
    part.startsWith('"') ? part : 'null',
  );
  if (without === line) return false;
  try {
    JSON.parse(without);
    return true;
  } catch {
    return false;
  }
}
