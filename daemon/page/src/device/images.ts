// Images between files, canvases and requests.

/** The longest side of an init image that is sent: larger ones are scaled down, as the device would do it. */
const LONGEST_SIDE = 2048;
/** Of a message's bytes, how many an image may take in base64; the rest is the request's own. */
const SHARE = 0.9;

export interface Loaded {
    dataUrl: string;
    width: number;
    height: number;
}

/** Reads an image for a request of at most `packet` bytes. @throws if the browser cannot read it. */
export async function load(file: Blob, packet: number): Promise<Loaded> {
    const bitmap = await createImageBitmap(file);
    const { width, height } = bitmap;
    const most = packet * SHARE * 0.75;
    const sendable = /^image\/(png|jpeg|webp|bmp|gif)$/.test(file.type);
    if (sendable && file.size <= most && Math.max(width, height) <= LONGEST_SIDE) {
        return { dataUrl: await dataUrlOf(file), width, height };
    }
    for (let scale = Math.min(1, LONGEST_SIDE / Math.max(width, height)); ; scale *= 0.7) {
        const canvas = document.createElement("canvas");
        canvas.width = Math.max(1, Math.round(width * scale));
        canvas.height = Math.max(1, Math.round(height * scale));
        canvas.getContext("2d")!.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
        const dataUrl = canvas.toDataURL("image/jpeg", 0.9);
        if (dataUrl.length <= packet * SHARE || canvas.width < 64)
            return { dataUrl, width: canvas.width, height: canvas.height };
    }
}

function dataUrlOf(blob: Blob): Promise<string> {
    return new Promise((resolve, reject) => {
        const reader = new FileReader();
        reader.onload = () => resolve(reader.result as string);
        reader.onerror = () => reject(reader.error);
        reader.readAsDataURL(blob);
    });
}
