// Vectors: decoded, compared, and laid out in a plane by their two main directions. Pure.

// Rows of `vectors` events in the order of the texts.
export function rows(events) {
  const found = [];
  for (const { index, count, dimension, data } of events) {
    const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    for (let row = 0; row < count; row += 1) {
      const values = new Float32Array(dimension);
      for (let at = 0; at < dimension; at += 1) values[at] = view.getFloat32((row * dimension + at) * 4, true);
      found[index + row] = values;
    }
  }
  return found;
}

const dot = (a, b) => a.reduce((sum, value, at) => sum + value * b[at], 0);

export function similarity(a, b) {
  return dot(a, b) / (Math.sqrt(dot(a, a) * dot(b, b)) || 1);
}

// Indices of the others, the most alike first.
export function neighbours(vectors, chosen) {
  return vectors.map((each, at) => ({ at, alike: similarity(vectors[chosen], each) })).filter(({ at }) => at !== chosen).sort((a, b) => b.alike - a.alike);
}

// Points of the plane of the two largest principal components, each coordinate from -1 to 1.
export function plane(vectors) {
  const n = vectors.length;
  const mean = vectors[0].map((_, at) => vectors.reduce((sum, each) => sum + each[at], 0) / n);
  const centred = vectors.map((each) => each.map((value, at) => value - mean[at]));
  const gram = centred.map((a) => centred.map((b) => dot(a, b)));
  const first = component(gram);
  const rest = gram.map((row, i) => row.map((value, j) => value - first.size * first.axis[i] * first.axis[j]));
  const second = component(rest);
  const scaled = ({ axis }) => {
    const most = Math.max(...axis.map(Math.abs), 1e-9);
    return axis.map((value) => value / most);
  };
  const [x, y] = [scaled(first), scaled(second)];
  return vectors.map((_, at) => [x[at], y[at]]);
}

// The largest eigenvalue of a symmetric matrix and its axis, by power iteration.
function component(matrix) {
  let axis = matrix.map((_, at) => Math.sin(at + 1));
  let size = 0;
  for (let round = 0; round < 60; round += 1) {
    const next = matrix.map((row) => dot(row, axis));
    size = Math.sqrt(dot(next, next));
    if (size < 1e-12) return { size: 0, axis: axis.map(() => 0) };
    axis = next.map((value) => value / size);
  }
  return { size, axis };
}
