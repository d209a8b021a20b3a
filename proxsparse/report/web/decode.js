// Arrays as proxsparse.report.packing wrote them: {kind, shape, data}, base64 of zlib. Nothing here knows what they mean.
"use strict";

async function unpacked(entry) {
  const packed = Uint8Array.from(atob(entry.data), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const count = entry.shape.reduce((product, size) => product * size, 1);
  if (entry.kind === "bits") return Uint8Array.from({length: count}, (_, i) => (bytes[i >> 3] >> (i & 7)) & 1);
  if (entry.kind === "float32") {
    const view = new DataView(bytes.buffer);
    return Float32Array.from({length: count}, (_, i) => view.getFloat32(4 * i, true));
  }
  return series(bytes, count, count / entry.shape[0], entry.unit);
}

// float16 numbers, each the one `width` before it plus what is written, modulo 2^16: low bytes first, then high bytes.
function series(bytes, count, width, unit) {
  const bits = new Uint16Array(count);
  for (let i = 0; i < count; i++) bits[i] = (i < width ? 0 : bits[i - width]) + bytes[i] + 256 * bytes[count + i];
  return Float32Array.from(bits, (value) => half(value) * unit);
}

function half(bits) {
  const sign = bits >> 15 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return exponent ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024) : sign * 2 ** -14 * (fraction / 1024);
}
