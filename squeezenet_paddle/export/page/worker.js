// Decodes images and runs the engine on them, so that the page itself never waits.
//
// Pixels reach the engine as the tools read them: as stored, without colour profiles, turned as EXIF
// says, transparency dropped. The engine, not the browser, resizes them.
"use strict";

const STRIP = 1 << 20; // pixels copied at a time, so that a large image needs its memory once
const PREVIEW = 640; // pixels of the longer side of what is kept to be shown
const AS_STORED = { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" };

let engine = null;

class Engine {
  // The C code: its exports, and the memory behind its own data, which has the arena and then the
  // pixels of the image at hand.
  constructor(code, weights) {
    this.c = new WebAssembly.Instance(new WebAssembly.Module(code), {}).exports;
    this.c._initialize();
    const arena = this.c.__heap_base.value;
    this.pixels = arena + this.c.arena_bytes();
    this.room(weights.byteLength).set(new Uint8Array(weights));
    this.check(this.c.load(this.pixels, weights.byteLength, arena));
  }

  // Memory for an image, which grows with the largest one.
  room(bytes) {
    const missing = this.pixels + bytes - this.c.memory.buffer.byteLength;
    if (missing > 0) this.c.memory.grow(Math.ceil(missing / 65536));
    return new Uint8Array(this.c.memory.buffer, this.pixels, bytes);
  }

  check(code) {
    if (code === 0) return;
    const text = new Uint8Array(this.c.memory.buffer, this.c.message(code), 200);
    throw new Error(new TextDecoder().decode(text.slice(0, text.indexOf(0))));
  }

  // Classifies the pixels that lie in `room`, and maps where the classes `shown` are seen, or else
  // the first ones.
  classify(width, height, shown) {
    const start = performance.now();
    this.check(this.c.classify(this.pixels, width, height));
    const ms = performance.now() - start;
    const ranks = Array.from({ length: this.c.count() }, (_, rank) => rank);
    const ids = ranks.map((rank) => this.c.class_id(rank));
    return {
      ids,
      probabilities: ranks.map((rank) => this.c.probability(rank)),
      logits: new Float32Array(this.c.memory.buffer, this.c.logits(), this.c.classes()).slice(),
      isNone: this.c.is_none() === 1,
      maps: (shown ?? ids).map((id) => this.map(id)),
      ms,
    };
  }

  // Where the network sees a class, in every second row and column of what it sees: 0..255.
  map(id) {
    const side = this.c.side();
    const values = new Float32Array(this.c.memory.buffer, this.c.map_of(id), side * side);
    const largest = values.reduce((a, b) => Math.max(a, b), 0);
    const half = Math.ceil(side / 2);
    const map = new Uint8Array(half * half);
    for (let i = 0; i < map.length; i++) {
      const value = values[2 * Math.floor(i / half) * side + 2 * (i % half)];
      if (value > 0) map[i] = (255 * value) / largest;
    }
    return map;
  }
}

// Copies the pixels of a bitmap into the engine's memory, R, G, B; says whether all are exact.
function copyPixels(bitmap) {
  const { width, height } = bitmap;
  const target = engine.room(3 * width * height);
  const rows = Math.max(1, Math.min(height, Math.floor(STRIP / width)));
  let reader = canvasReader(bitmap, rows);
  let to = 0;
  for (let y = 0; y < height; y += rows) {
    const count = Math.min(rows, height - y);
    let data = reader.read(y, count);
    if (reader.exact === false && hasAlpha(data)) {
      reader = textureReader(bitmap) ?? { ...reader, exact: null };
      data = reader.read(y, count);
    }
    for (let i = 0; i < data.length; i += 4) {
      target[to++] = data[i];
      target[to++] = data[i + 1];
      target[to++] = data[i + 2];
    }
  }
  reader.free?.();
  return reader.exact !== null;
}

function hasAlpha(data) {
  for (let i = 3; i < data.length; i += 4) if (data[i] !== 255) return true;
  return false;
}

// Reads rows by a canvas, which forgets the colours of what is transparent.
function canvasReader(bitmap, rows) {
  const context = new OffscreenCanvas(bitmap.width, rows).getContext("2d", { willReadFrequently: true });
  context.globalCompositeOperation = "copy";
  return {
    exact: false,
    read(y, count) {
      context.drawImage(bitmap, 0, -y);
      return context.getImageData(0, 0, bitmap.width, count).data;
    },
  };
}

let webgl;

// Reads rows by a texture, which keeps all colours; null where that cannot be.
function textureReader(bitmap) {
  const gl = (webgl ??= new OffscreenCanvas(1, 1).getContext("webgl"));
  const { width, height } = bitmap;
  if (gl === null || Math.max(width, height) > gl.getParameter(gl.MAX_TEXTURE_SIZE)) return null;
  const [texture, framebuffer] = [gl.createTexture(), gl.createFramebuffer()];
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.bindFramebuffer(gl.FRAMEBUFFER, framebuffer);
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
  return {
    exact: true,
    read(y, count) {
      const data = new Uint8Array(4 * width * count);
      gl.readPixels(0, y, width, count, gl.RGBA, gl.UNSIGNED_BYTE, data);
      return data;
    },
    free() {
      gl.deleteFramebuffer(framebuffer);
      gl.deleteTexture(texture);
    },
  };
}

async function preview(bitmap) {
  const scale = Math.min(1, PREVIEW / Math.max(bitmap.width, bitmap.height));
  const size = [bitmap.width, bitmap.height].map((n) => Math.max(1, Math.round(n * scale)));
  const canvas = new OffscreenCanvas(...size);
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, ...size);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, ...size);
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.85 });
}

async function decode(file) {
  if (file.size === 0) throw new Error("an empty file");
  try {
    return await createImageBitmap(file, AS_STORED);
  } catch {
    throw new Error(problem(new Uint8Array(await file.slice(0, 32).arrayBuffer())));
  }
}

// Why a browser cannot decode a file that starts so.
function problem(start) {
  const text = String.fromCharCode(...start);
  const brand = text.slice(4, 8) === "ftyp" ? text.slice(8, 12) : "";
  const kind = /^(II\*\0|MM\0\*)/.test(text) ? "TIFF" : /^(hei|hev|mif|msf)/.test(brand) ? "HEIC" : /^avi/.test(brand) ? "AVIF" : null;
  if (kind) return `this browser cannot decode ${kind} images; save it as JPEG or PNG`;
  const known = /^(\xff\xd8|\x89PNG|GIF8|BM|RIFF....WEBP)/s.test(text);
  return known ? "the image is cut off or damaged" : "not an image";
}

const handlers = {
  load({ code, weights }) {
    engine = new Engine(code, weights);
    engine.room(3).fill(0);
    engine.classify(1, 1, []); // so that the browser compiles for speed before it matters
    return {};
  },

  async classify({ file, bitmap, withPreview, shown }) {
    bitmap ??= await decode(file);
    try {
      const { width, height } = bitmap;
      const exact = copyPixels(bitmap);
      const result = engine.classify(width, height, shown);
      return { ...result, exact, width, height, preview: withPreview ? await preview(bitmap) : null };
    } finally {
      bitmap.close();
    }
  },
};

onmessage = async ({ data: { id, kind, ...job } }) => {
  try {
    postMessage({ id, result: await handlers[kind](job) });
  } catch (error) {
    postMessage({ id, error: error.message });
  }
};
