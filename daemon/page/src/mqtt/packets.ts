// Packets of MQTT 5 as bytes: those that a client of QoS 0 and 1 sends and receives. (OASIS, MQTT Version 5.0, 2019.)
// Libraries that do the same take up to 105 KB of the 120 that the whole page may have.

export interface Login {
    clientId: string;
    username?: string;
    password?: string;
    /** Seconds. */
    keepAlive: number;
    /** Seconds for which the broker keeps messages after the connection has ended. */
    sessionExpiry: number;
    cleanStart: boolean;
}

export interface Publish {
    type: "publish";
    topic: string;
    payload: Uint8Array;
    qos: number;
    id: number;
    retain: boolean;
}

export type Packet =
    | Publish
    | {
          type: "connack";
          code: number;
          sessionPresent: boolean;
          maximumPacket?: number;
          keepAlive?: number;
          reason?: string;
      }
    | { type: "puback"; id: number; code: number; reason?: string }
    | { type: "suback"; id: number; codes: number[] }
    | { type: "pong" }
    | { type: "disconnect"; code: number; reason?: string }
    | { type: "other" };

const CONNECT = 0x10;
const CONNACK = 2;
const PUBLISH = 3;
const PUBACK = 4;
const SUBSCRIBE = 0x82;
const SUBACK = 9;
const PINGREQ = 0xc0;
const PINGRESP = 13;
const DISCONNECT = 14;

const SESSION_EXPIRY = 0x11;
const SERVER_KEEP_ALIVE = 0x13;
const REASON = 0x1f;
const PAYLOAD_IS_TEXT = 0x01;
const CONTENT_TYPE = 0x03;
const MAXIMUM_PACKET = 0x27;

/** What follows a property's identifier (section 2.2.2.2): bytes of a number, or how it is read. */
const PROPERTIES: Record<number, number | "text" | "variable" | "pair"> = {
    0x01: 1,
    0x02: 4,
    0x03: "text",
    0x08: "text",
    0x09: "text",
    0x0b: "variable",
    0x11: 4,
    0x12: "text",
    0x13: 2,
    0x15: "text",
    0x16: "text",
    0x17: 1,
    0x18: 4,
    0x19: 1,
    0x1a: "text",
    0x1c: "text",
    0x1f: "text",
    0x21: 2,
    0x22: 2,
    0x23: 2,
    0x24: 1,
    0x25: 1,
    0x26: "pair",
    0x27: 4,
    0x28: 1,
    0x29: 1,
    0x2a: 1,
};

const encoder = new TextEncoder();
const decoder = new TextDecoder();

function number(value: number, bytes: number): number[] {
    return Array.from({ length: bytes }, (_, i) => (value >>> (8 * (bytes - 1 - i))) & 0xff);
}

function variable(value: number): number[] {
    const bytes = [];
    do {
        bytes.push((value % 128) | (value >= 128 ? 0x80 : 0));
        value = Math.floor(value / 128);
    } while (value > 0);
    return bytes;
}

function text(value: string): number[] {
    const bytes = encoder.encode(value);
    return [...number(bytes.length, 2), ...bytes];
}

function packet(first: number, head: number[], payload: Uint8Array = new Uint8Array()): Uint8Array {
    const start = [first, ...variable(head.length + payload.length), ...head];
    const bytes = new Uint8Array(start.length + payload.length);
    bytes.set(start);
    bytes.set(payload, start.length);
    return bytes;
}

export function connect(login: Login): Uint8Array {
    const { username, password } = login;
    const flags =
        (login.cleanStart ? 0x02 : 0) | (username === undefined ? 0 : 0x80) | (password === undefined ? 0 : 0x40);
    const properties = [SESSION_EXPIRY, ...number(login.sessionExpiry, 4)];
    const head = [...text("MQTT"), 5, flags, ...number(login.keepAlive, 2), properties.length, ...properties];
    const names = [login.clientId, username, password].filter((name) => name !== undefined);
    return packet(CONNECT, [...head, ...names.flatMap(text)]);
}

export function subscribe(id: number, filters: string[]): Uint8Array {
    const qosOne = 1;
    return packet(SUBSCRIBE, [...number(id, 2), 0, ...filters.flatMap((filter) => [...text(filter), qosOne])]);
}

/** A message of QoS 1 whose payload is JSON. */
export function publish(id: number, topic: string, payload: Uint8Array, again: boolean): Uint8Array {
    const properties = [PAYLOAD_IS_TEXT, 1, CONTENT_TYPE, ...text("application/json")];
    const flags = (PUBLISH << 4) | (again ? 0x08 : 0) | 0x02;
    return packet(flags, [...text(topic), ...number(id, 2), properties.length, ...properties], payload);
}

export const puback = (id: number) => packet(PUBACK << 4, number(id, 2));
export const ping = () => packet(PINGREQ, []);

/** The end of the connection and of its session: the broker keeps nothing. */
export const disconnect = () => packet(DISCONNECT << 4, [0, 5, SESSION_EXPIRY, 0, 0, 0, 0]);

/** Cuts a stream of bytes into packets. */
export class PacketReader {
    #chunks: Uint8Array[] = [];
    #held = 0;

    /** The packets that are complete with `bytes`. @throws if they are not MQTT's. */
    push(bytes: Uint8Array): Packet[] {
        this.#chunks.push(bytes);
        this.#held += bytes.length;
        const packets = [];
        for (let size = this.#size(); size !== undefined && size.total <= this.#held; size = this.#size()) {
            const all = this.#join();
            packets.push(read(all[0]!, all.subarray(size.head, size.total)));
            this.#chunks = [all.subarray(size.total)];
            this.#held = all.length - size.total;
        }
        return packets;
    }

    /** The next packet's length, once enough of it is there. */
    #size(): { head: number; total: number } | undefined {
        if (this.#held < 2) return undefined;
        if (this.#chunks[0]!.length < Math.min(5, this.#held)) this.#join();
        const first = this.#chunks[0]!;
        let length = 0;
        for (let i = 1; i <= 4 && i < first.length; i += 1) {
            length += (first[i]! & 0x7f) * 128 ** (i - 1);
            if (first[i]! < 0x80) return { head: i + 1, total: i + 1 + length };
        }
        if (first.length >= 5) throw new Error("not a packet of MQTT");
        return undefined;
    }

    #join(): Uint8Array {
        if (this.#chunks.length === 1) return this.#chunks[0]!;
        const all = new Uint8Array(this.#held);
        let at = 0;
        for (const chunk of this.#chunks) {
            all.set(chunk, at);
            at += chunk.length;
        }
        this.#chunks = [all];
        return all;
    }
}

/** Walks through the bytes of one packet. */
class Cursor {
    at = 0;
    constructor(readonly bytes: Uint8Array) {}

    get left(): number {
        return this.bytes.length - this.at;
    }

    number(length: number): number {
        if (this.left < length) throw new Error("a packet of MQTT that ends too early");
        let value = 0;
        for (let i = 0; i < length; i += 1) value = value * 256 + this.bytes[this.at + i]!;
        this.at += length;
        return value;
    }

    variable(): number {
        let value = 0;
        for (let i = 0; i < 4; i += 1) {
            const byte = this.number(1);
            value += (byte & 0x7f) * 128 ** i;
            if (byte < 0x80) return value;
        }
        throw new Error("a number of MQTT that does not end");
    }

    text(): string {
        const length = this.number(2);
        if (this.left < length) throw new Error("a packet of MQTT that ends too early");
        this.at += length;
        return decoder.decode(this.bytes.subarray(this.at - length, this.at));
    }

    /** A packet's properties by their identifiers; none where the packet ends before them. */
    properties(): Record<number, number | string> {
        const found: Record<number, number | string> = {};
        if (this.left === 0) return found;
        const end = this.variable() + this.at;
        while (this.at < end) {
            const key = this.number(1);
            const kind = PROPERTIES[key];
            if (kind === undefined) throw new Error(`the unknown property ${key} of MQTT`);
            if (kind === "variable") found[key] = this.variable();
            else if (typeof kind === "number") found[key] = this.number(kind);
            else found[key] = kind === "pair" ? `${this.text()}=${this.text()}` : this.text();
        }
        return found;
    }
}

function read(first: number, bytes: Uint8Array): Packet {
    const cursor = new Cursor(bytes);
    const reason = (found: Record<number, number | string>) => found[REASON] as string | undefined;
    switch (first >> 4) {
        case CONNACK: {
            const [flags, code] = [cursor.number(1), cursor.number(1)];
            const found = cursor.properties();
            const [maximumPacket, keepAlive] = [MAXIMUM_PACKET, SERVER_KEEP_ALIVE].map(
                (key) => found[key] as number | undefined,
            );
            return {
                type: "connack",
                code,
                sessionPresent: (flags & 1) === 1,
                maximumPacket,
                keepAlive,
                reason: reason(found),
            };
        }
        case PUBLISH: {
            const qos = (first >> 1) & 3;
            const topic = cursor.text();
            const id = qos > 0 ? cursor.number(2) : 0;
            cursor.properties();
            // A copy: what the stream was read into is used again.
            return { type: "publish", topic, payload: bytes.slice(cursor.at), qos, id, retain: (first & 1) === 1 };
        }
        case PUBACK: {
            const id = cursor.number(2);
            const code = cursor.left > 0 ? cursor.number(1) : 0;
            return { type: "puback", id, code, reason: reason(cursor.properties()) };
        }
        case SUBACK: {
            const id = cursor.number(2);
            cursor.properties();
            return { type: "suback", id, codes: [...bytes.subarray(cursor.at)] };
        }
        case PINGRESP:
            return { type: "pong" };
        case DISCONNECT: {
            const code = cursor.left > 0 ? cursor.number(1) : 0;
            return { type: "disconnect", code, reason: reason(cursor.properties()) };
        }
        default:
            return { type: "other" };
    }
}
