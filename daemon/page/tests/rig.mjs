// What the page's tests share: a real broker with WebSockets that serves the page, real devices with the demo model, and
// Debian's Chromium.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../../", import.meta.url));
export const page = join(root, "daemon/assets/page");
const program = process.env.DIFFUSED_PROGRAM ?? join(root, "target/release/diffused");

export const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Waits until `probe` gives something true. */
export async function until(what, probe, milliseconds = 180_000) {
    for (const end = Date.now() + milliseconds; Date.now() < end; await sleep(50)) {
        const found = await probe();
        if (found) return found;
    }
    throw new Error(`in ${milliseconds} ms not: ${what}`);
}

export async function freePort() {
    const server = createServer();
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address();
    await new Promise((resolve) => server.close(resolve));
    return port;
}

export async function listens(port) {
    return new Promise((resolve) => {
        const socket = connect(port, "127.0.0.1", () => (socket.destroy(), resolve(true)));
        socket.on("error", () => resolve(false));
    });
}

/** A process with its output kept, for a test that fails. */
export class Program {
    constructor(command, args, options = {}) {
        this.output = "";
        this.child = spawn(command, args, { ...options, stdio: ["ignore", "pipe", "pipe"] });
        for (const stream of [this.child.stdout, this.child.stderr]) stream.on("data", (text) => (this.output += text));
        this.ended = new Promise((resolve) => this.child.on("exit", resolve));
    }

    async stop() {
        if (this.child.exitCode === null) this.child.kill();
        await this.ended;
    }
}

/** mosquitto on two ports: MQTT, and WebSockets with the page. `more` are further lines of its configuration. */
export class Broker {
    static async start(more = []) {
        const broker = new Broker();
        broker.folder = mkdtempSync(join(tmpdir(), "diffused-page-"));
        [broker.port, broker.webPort] = [await freePort(), await freePort()];
        const anonymous = more.some((line) => line.startsWith("allow_anonymous")) ? [] : ["allow_anonymous true"];
        const lines = [
            "user root",
            "set_tcp_nodelay true",
            ...anonymous,
            ...more,
            `listener ${broker.port} 127.0.0.1`,
            `listener ${broker.webPort} 127.0.0.1`,
            "protocol websockets",
            `http_dir ${page}`,
        ];
        writeFileSync(join(broker.folder, "mosquitto.conf"), `${lines.join("\n")}\n`);
        await broker.up();
        return broker;
    }

    async up() {
        this.program = new Program("mosquitto", ["-c", join(this.folder, "mosquitto.conf")]);
        await until("the broker listens", () => listens(this.webPort));
    }

    async down() {
        await this.program.stop();
    }

    get address() {
        return `http://127.0.0.1:${this.webPort}/`;
    }

    async stop() {
        await this.down();
        rmSync(this.folder, { recursive: true });
    }
}

/** A device with the demo model. */
export class Device {
    static async start(broker, name, more = "") {
        const device = new Device();
        device.folder = mkdtempSync(join(tmpdir(), `diffused-${name}-`));
        const file = join(device.folder, "config.toml");
        const config = `device = "${name}"\nstate_dir = "${device.folder}"\nthreads = 1\n${more}\n[mqtt]\nurl = "mqtt://127.0.0.1:${broker.port}"\n`;
        writeFileSync(file, config);
        device.program = new Program(program, ["run", "--config", file]);
        await until(`${name} is connected`, () => device.program.output.includes("connected"));
        return device;
    }

    async stop() {
        await this.program.stop();
        rmSync(this.folder, { recursive: true });
    }
}

let browser;

/** The browser: one for all tests. */
export async function theBrowser() {
    const { chromium } = await import("playwright-core");
    browser ??= await chromium.launch({
        executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
        args: [
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ],
    });
    return browser;
}

export async function closeBrowser() {
    await browser?.close();
}

export const DESK = { width: 1280, height: 900 };
export const PHONE = { width: 390, height: 844 };

/** Opens the page; the faults of its scripts end the test. */
export async function open(address, { viewport = DESK, locale = "en-GB", colorScheme = "light", touch = false } = {}) {
    const context = await (
        await theBrowser()
    ).newContext({ viewport, locale, colorScheme, hasTouch: touch, deviceScaleFactor: 1 });
    const tab = await context.newPage();
    tab.setDefaultTimeout(60_000);
    tab.faults = [];
    tab.on("pageerror", (error) => tab.faults.push(String(error)));
    await tab.goto(address);
    return tab;
}
