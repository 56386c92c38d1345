// What is downloaded: JSON, COCO, crops, and page images with annotations. All of it is made here, from what is shown.

export function save(name, content, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

export function stemOf(source) {
  return source.replace(/\.[^.]*$/, "").replace(/[^\p{L}\p{N}._-]+/gu, "_") || "document";
}

export function pageName(source, index) {
  return `${stemOf(source)}-page-${index + 1}.png`;
}

export function asJson(source, model, pages, items) {
  const regionOf = (item) => ({
    label: item.label,
    bbox: item.bbox,
    score: item.edited ? null : item.score,
    title: item.title || null,
    caption: item.caption || null,
    corrected: item.edited,
  });
  return {
    source,
    model,
    pages: pages.map((page) => ({
      index: page.index,
      width: page.width,
      height: page.height,
      regions: items.filter((item) => item.page === page.index).map(regionOf),
    })),
  };
}

export function asCoco(source, labels, pages, items) {
  const categories = labels.map((name, index) => ({ id: index + 1, name }));
  const images = pages.map((page) => ({
    id: page.index + 1,
    file_name: pageName(source, page.index),
    width: page.width,
    height: page.height,
  }));
  const annotations = items.map((item, index) => {
    const [x1, y1, x2, y2] = item.bbox;
    const [width, height] = [x2 - x1, y2 - y1].map((value) => Math.round(value * 100) / 100);
    return {
      id: index + 1,
      image_id: item.page + 1,
      category_id: labels.indexOf(item.label) + 1,
      bbox: [x1, y1, width, height],
      area: Math.round(width * height * 100) / 100,
      iscrowd: 0,
    };
  });
  return { info: { description: `Boxes of ${source}, looked over in florentune` }, images, annotations, categories };
}

export async function cropOf(image, bbox) {
  await image.decode();
  const [x1, y1] = bbox.slice(0, 2).map(Math.floor);
  const [x2, y2] = bbox.slice(2).map(Math.ceil);
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(x2 - x1, 1);
  canvas.height = Math.max(y2 - y1, 1);
  canvas.getContext("2d").drawImage(image, x1, y1, canvas.width, canvas.height, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

const CRC = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value >>> 0;
});

function crcOf(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = (value >>> 8) ^ CRC[(value ^ byte) & 255];
  return (value ^ 0xffffffff) >>> 0;
}

// A zip archive of [name, Blob or text] pairs, stored without compression: PNG does not get smaller.
export async function zipOf(files) {
  const parts = [];
  const directory = [];
  let offset = 0;
  for (const [name, content] of files) {
    const bytes = new Uint8Array(await new Blob([content]).arrayBuffer());
    const title = new TextEncoder().encode(name);
    const shared = new DataView(new ArrayBuffer(26));
    shared.setUint16(0, 20, true);
    shared.setUint16(2, 0x0800, true); // names are UTF-8
    shared.setUint16(8, 0x21, true); // 1 January 1980
    shared.setUint32(10, crcOf(bytes), true);
    shared.setUint32(14, bytes.length, true);
    shared.setUint32(18, bytes.length, true);
    shared.setUint16(22, title.length, true);
    parts.push(new Uint8Array([0x50, 0x4b, 3, 4]), shared, title, bytes);
    const rest = new DataView(new ArrayBuffer(14));
    rest.setUint32(10, offset, true);
    directory.push(new Uint8Array([0x50, 0x4b, 1, 2, 20, 0]), shared, rest, title);
    offset += 30 + title.length + bytes.length;
  }
  const size = directory.reduce((sum, part) => sum + part.byteLength, 0);
  const end = new DataView(new ArrayBuffer(22));
  end.setUint32(0, 0x06054b50, true);
  end.setUint16(8, files.length, true);
  end.setUint16(10, files.length, true);
  end.setUint32(12, size, true);
  end.setUint32(16, offset, true);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}
