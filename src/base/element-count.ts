/** How many elements a tensor of this shape has; 1 for a scalar, of shape []. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}
