// The connection to the broker: kept up, with what was published and not acknowledged sent again after a break.

import * as packets from "./packets";
import type { Packet, Publish } from "./packets";

/** Why there is no connection, for the words that people get. */
export type Trouble =
    /** Nobody answers at this address, or not over WebSockets: a browser does not say which. */
    | { why: "unreachable" }
    /** The page came over https, from which browsers do not connect to `ws:`. */
    | { why: "insecure" }
    /** The address is not one. */
    | { why: "address" }
    /** Somebody answers, but not in MQTT 5. */
    | { why: "silent" }
    /** The broker refuses the login (a reason code of CONNACK), or ends the connection (one of DISCONNECT). */
    | { why: "refused" | "ended"; code: number; reason?: string }
    /** There was a connection. */
    | { why: "lost" };

export type Link =
    | { is: "off" }
    | { is: "connecting"; trouble?: Trouble }
    | { is: "up" }
    /** `retryAt`: milliseconds since 1970, or never by itself. */
    | { is: "down"; trouble: Trouble; retryAt?: number };

export interface Settings {
    url: string;
    username: string;
    password: string;
}

export interface Listener {
    link(link: Link): void;
    /** Topic filters that the broker does not grant. */
    denied(filters: string[]): void;
    message(message: Publish): void;
}

interface Pending {
    topic: string;
    payload: Uint8Array;
    sent: boolean;
    done(code: number, reason?: string): void;
}

const KEEP_ALIVE = 30;
/** A phone that sleeps for so long misses no picture, seconds. */
const SESSION_EXPIRY = 600;
const PATIENCE = 10_000;
const FIRST_PAUSE = 1_000;
const LONGEST_PAUSE = 30_000;
/** From here on a reason code is an error. */
const ERRORS = 0x80;
/** Reason codes that no second attempt mends: of the protocol, the client id, the login and bans. */
const FINAL = [0x01, 0x84, 0x85, 0x86, 0x87, 0x8a, 0x8c];

export class Broker {
    #socket?: WebSocket;
    #settings?: Settings;
    #filters: string[] = [];
    #clientId = `diffused-page-${Math.random().toString(36).slice(2, 12)}`;
    #hadSession = false;
    #up = false;
    #pause = FIRST_PAUSE;
    #timers: number[] = [];
    #awaitsPong = false;
    #nextId = 0;
    #pending = new Map<number, Pending>();
    #subscriptions = new Map<number, string[]>();

    constructor(readonly listener: Listener) {}

    /** Connects, and again whenever the connection is gone, until `stop`. */
    start(settings: Settings, filters: string[]): void {
        this.stop();
        this.#settings = settings;
        this.#filters = filters;
        this.#hadSession = false;
        this.#pause = FIRST_PAUSE;
        this.#open();
    }

    stop(): void {
        if (this.#socket?.readyState === WebSocket.OPEN) this.#send(packets.disconnect());
        this.#drop();
        this.#settings = undefined;
        this.#pending.clear();
        this.listener.link({ is: "off" });
    }

    /** Does not wait for the next attempt. */
    retry(): void {
        if (this.#settings && !this.#socket) this.#open();
    }

    /** Publishes JSON with QoS 1. `done` gets the broker's reason code, after a break of the connection if need be. */
    publish(topic: string, json: string, done: (code: number, reason?: string) => void = () => {}): void {
        const id = this.#id();
        this.#pending.set(id, { topic, payload: new TextEncoder().encode(json), sent: false, done });
        this.#flush();
    }

    #id(): number {
        do this.#nextId = (this.#nextId % 0xffff) + 1;
        while (this.#pending.has(this.#nextId) || this.#subscriptions.has(this.#nextId));
        return this.#nextId;
    }

    #open(trouble?: Trouble): void {
        this.#drop();
        const { url } = this.#settings!;
        this.listener.link({ is: "connecting", trouble });
        let socket: WebSocket;
        try {
            if (location.protocol === "https:" && url.startsWith("ws:")) return this.#fail({ why: "insecure" }, true);
            socket = new WebSocket(url, "mqtt");
        } catch {
            return this.#fail({ why: "address" }, true);
        }
        socket.binaryType = "arraybuffer";
        this.#socket = socket;
        const reader = new packets.PacketReader();
        let opened = false;
        const mine = (act: () => void) => () => this.#socket === socket && act();
        this.#after(PATIENCE, () => this.#fail({ why: opened ? "silent" : "unreachable" }));
        socket.onopen = mine(() => {
            opened = true;
            this.#login();
        });
        socket.onclose = mine(() => this.#fail({ why: this.#up ? "lost" : opened ? "silent" : "unreachable" }));
        socket.onmessage = (event) => {
            if (this.#socket !== socket) return;
            try {
                for (const packet of reader.push(new Uint8Array(event.data as ArrayBuffer))) this.#take(packet);
            } catch (error) {
                console.error(error);
                this.#fail({ why: "silent" });
            }
        };
    }

    #login(): void {
        const { username, password } = this.#settings!;
        this.#send(
            packets.connect({
                clientId: this.#clientId,
                username: username || undefined,
                password: password || undefined,
                keepAlive: KEEP_ALIVE,
                sessionExpiry: SESSION_EXPIRY,
                cleanStart: !this.#hadSession,
            }),
        );
    }

    #take(packet: Packet): void {
        switch (packet.type) {
            case "connack":
                if (packet.code !== 0) {
                    const { code, reason } = packet;
                    return this.#fail({ why: "refused", code, reason }, FINAL.includes(code));
                }
                return this.#welcome(packet.keepAlive ?? KEEP_ALIVE);
            case "publish":
                this.listener.message(packet);
                if (packet.qos > 0) this.#send(packets.puback(packet.id));
                return;
            case "puback": {
                const pending = this.#pending.get(packet.id);
                this.#pending.delete(packet.id);
                return pending?.done(packet.code, packet.reason);
            }
            case "suback": {
                const filters = this.#subscriptions.get(packet.id) ?? [];
                this.#subscriptions.delete(packet.id);
                const denied = filters.filter((_, i) => (packet.codes[i] ?? 0) >= ERRORS);
                return denied.length > 0 ? this.listener.denied(denied) : undefined;
            }
            case "pong":
                this.#awaitsPong = false;
                return;
            case "disconnect":
                return this.#fail({ why: "ended", code: packet.code, reason: packet.reason });
            case "other":
        }
    }

    #welcome(keepAlive: number): void {
        this.#hadSession = true;
        this.#up = true;
        this.#pause = FIRST_PAUSE;
        this.#clearTimers();
        this.#awaitsPong = false;
        this.#timers.push(window.setInterval(() => this.#beat(), keepAlive * 500));
        const id = this.#id();
        this.#subscriptions.set(id, this.#filters);
        this.#send(packets.subscribe(id, this.#filters));
        this.listener.link({ is: "up" });
        this.#flush();
    }

    /** A ping twice in the keep-alive's time; the one before must have been answered. */
    #beat(): void {
        if (this.#awaitsPong) return this.#fail({ why: "lost" });
        this.#awaitsPong = true;
        this.#send(packets.ping());
    }

    #flush(): void {
        if (!this.#up) return;
        for (const [id, pending] of this.#pending) {
            if (pending.sent) continue;
            this.#send(packets.publish(id, pending.topic, pending.payload, false));
            pending.sent = true;
        }
    }

    #fail(trouble: Trouble, final = false): void {
        this.#drop();
        if (final) return this.listener.link({ is: "down", trouble });
        const pause = this.#pause * (0.75 + Math.random() / 2);
        this.#pause = Math.min(this.#pause * 2, LONGEST_PAUSE);
        this.#after(pause, () => this.#open(trouble));
        this.listener.link({ is: "down", trouble, retryAt: Date.now() + pause });
    }

    #drop(): void {
        this.#clearTimers();
        const socket = this.#socket;
        this.#socket = undefined;
        this.#up = false;
        socket?.close();
        this.#subscriptions.clear();
        for (const pending of this.#pending.values()) pending.sent = false;
    }

    #send(bytes: Uint8Array): void {
        if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(bytes as Uint8Array<ArrayBuffer>);
    }

    #after(milliseconds: number, act: () => void): void {
        this.#timers.push(window.setTimeout(act, milliseconds));
    }

    #clearTimers(): void {
        for (const timer of this.#timers) window.clearTimeout(timer); // intervals, too
        this.#timers = [];
    }
}
