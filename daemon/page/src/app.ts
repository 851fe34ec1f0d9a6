// What the page knows and does: settings, the connection, the devices, and what is in the form. Views show it.

import type { Parameters } from "./device/contract";
import { toJson } from "./device/contract";
import type { Device, Job, Picture } from "./device/devices";
import { Devices, isOver } from "./device/devices";
import { load } from "./device/images";
import type { Draft, Problems } from "./form/draft";
import { draftOf, isImageToImage, requestOf, requestOfPainted } from "./form/draft";
import type { Field } from "./form/schema";
import { fieldsOf } from "./form/schema";
import type { Link, Settings } from "./mqtt/broker";
import { Broker } from "./mqtt/broker";
import type { Text } from "./text";
import { LANGUAGES, ownLanguage } from "./text";

export interface Preferences {
    url: string;
    username: string;
    password: string;
    remember: boolean;
    base: string;
    device: string;
    language: string;
    theme: "system" | "light" | "dark";
}

const STORE = "diffused-page";
const DRAFT = "diffused-draft";
/** MQTT's reason code of a message that nobody has subscribed to. */
const NOBODY_LISTENS = 0x10;
/** How much of a picture a variation repaints. */
const VARIATION = 0.5;
/** What a request that was made from a picture does not take over. */
const OF_THE_START = /^(mask|inpaint|keep_unmasked|init_images|fit|background|hires|upscale)/;

/** Where mosquitto serves the page itself, the broker is where the page came from. */
function ownBroker(): string {
    const { protocol, host } = location;
    if (!host) return "ws://localhost:9001";
    return `${protocol === "https:" ? "wss" : "ws"}://${host}`;
}

function stored(): Preferences {
    const standard: Preferences = {
        url: ownBroker(),
        username: "",
        password: "",
        remember: false,
        base: "diffused",
        device: "",
        language: ownLanguage(),
        theme: "system",
    };
    const query = new URLSearchParams(location.search);
    const asked = { url: query.get("broker"), base: query.get("base"), device: query.get("device") };
    const given = Object.fromEntries(Object.entries(asked).filter(([, value]) => value));
    return { ...standard, ...read<Preferences>(STORE), ...given };
}

function read<T>(key: string): Partial<T> {
    try {
        return JSON.parse(localStorage.getItem(key) ?? "{}") as Partial<T>;
    } catch {
        return {};
    }
}

function write(key: string, value: unknown): void {
    try {
        localStorage.setItem(key, JSON.stringify(value));
    } catch {
        // Without storage, or when it is full of a large init image, nothing is remembered.
    }
}

export class App {
    preferences = stored();
    link: Link = { is: "off" };
    /** Topic filters that the broker did not grant. */
    denied: string[] = [];
    devices: Devices;
    draft: Draft = read<Draft>(DRAFT) as Draft;
    problems: Problems = {};
    /** What is said beside the form's button. */
    note = "";
    /** What is open over the page. */
    open: { is: "picture"; key: string } | { is: "mask" } | { is: "setup" } | undefined;
    /** What shall get the focus: a field by its path, or the first that is wrong. */
    focus?: { path: string } | "problem";
    #broker: Broker;
    /** The form's latest job, whose refusal marks the field that was wrong. */
    #formJob = "";
    /** Requests that no device heard, published again when it is there. */
    #unheard: { device: string; publish: () => void }[] = [];
    #listeners = new Set<() => void>();
    #scheduled = false;

    constructor() {
        this.devices = this.#newDevices();
        this.#broker = new Broker({
            link: (link) => {
                this.link = link;
                if (link.is === "up") this.denied = [];
                // What happened meanwhile is not known; retained messages come again.
                if (link.is === "up") for (const device of this.devices.all.values()) device.online = false;
                this.changed();
            },
            denied: (filters) => {
                this.denied = filters;
                this.changed();
            },
            message: (message) => {
                this.devices.take(message);
                this.#readRefusal();
            },
        });
        window.addEventListener("pagehide", () => this.#broker.stop());
        window.addEventListener("pageshow", (event) => event.persisted && this.connect());
        window.addEventListener("online", () => this.#broker.retry());
        document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.retry());
    }

    get text(): Text {
        return LANGUAGES[this.preferences.language] ?? LANGUAGES.en!;
    }

    /** The device that is looked at: the chosen one, else the first. */
    get device(): Device | undefined {
        const all = [...this.devices.all.values()].sort((a, b) => a.name.localeCompare(b.name));
        return this.devices.all.get(this.preferences.device) ?? all.find((device) => device.online) ?? all[0];
    }

    get fields(): Field[] {
        return fieldsOf(this.device?.info);
    }

    listen(listener: () => void): () => void {
        this.#listeners.add(listener);
        return () => this.#listeners.delete(listener);
    }

    /** Views are drawn anew, once for all that happens at a time. */
    changed = (): void => {
        if (this.#scheduled) return;
        this.#scheduled = true;
        queueMicrotask(() => {
            this.#scheduled = false;
            for (const listener of this.#listeners) listener();
        });
    };

    prefer(some: Partial<Preferences>): void {
        this.preferences = { ...this.preferences, ...some };
        const { password, remember, ...rest } = this.preferences;
        write(STORE, { ...rest, remember, password: remember ? password : "" });
        this.changed();
    }

    connect(): void {
        const { url, username, password, base } = this.preferences;
        if (base !== this.devices.base) this.devices = this.#newDevices();
        const settings: Settings = { url, username, password };
        this.#broker.start(settings, this.devices.filters());
    }

    retry = (): void => this.#broker.retry();

    #newDevices(): Devices {
        return new Devices(this.preferences.base, this.changed, (device) => {
            this.command(device, "list");
            this.command(device, "health");
            const mine = this.#unheard.filter((request) => request.device === device);
            this.#unheard = this.#unheard.filter((request) => request.device !== device);
            for (const request of mine) request.publish();
        });
    }

    command(device: string, command: string): void {
        this.#broker.publish(this.devices.topic(device, `request/${command}`), "{}");
    }

    /** Has a job that waits painted after `to` of the others. */
    move(device: string, id: string, to: number): void {
        this.#broker.publish(this.devices.topic(device, "request/move"), JSON.stringify({ id, to }));
    }

    cancel(device: string, id: string | undefined): void {
        const unheard = id === undefined ? undefined : this.devices.device(device).jobs.get(id);
        if (unheard?.state === "sent") unheard.state = "cancelled";
        this.#broker.publish(
            this.devices.topic(device, "cancel"),
            JSON.stringify(id === undefined ? { all: true } : { id }),
        );
    }

    type(path: string, value: string): void {
        this.draft = { ...this.draft, [path]: value };
        if (path === "init_images") this.draft.mask = "";
        delete this.problems[path];
        this.note = "";
        write(DRAFT, { ...this.draft, init_images: "", mask: "" });
        this.changed();
    }

    setDraft(draft: Draft): void {
        this.draft = draft;
        this.problems = {};
        this.note = "";
        write(DRAFT, { ...draft, init_images: "", mask: "" });
        this.focus = { path: "prompt" };
        this.changed();
    }

    /** Sends what is in the form, or marks what is wrong. */
    submit(): void {
        const { device } = this;
        if (!device) return;
        const { request, problems } = requestOf(this.fields, this.draft);
        this.problems = problems;
        if (Object.keys(problems).length > 0) {
            this.note = this.text.form.problems;
            this.focus = "problem";
            return this.changed();
        }
        this.note = this.link.is === "up" ? "" : this.text.form.notConnected;
        this.#formJob = this.send(device.name, request, isImageToImage(this.draft));
        // On a phone, what happens now is below the form.
        const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "instant" : "smooth";
        document.querySelector("section.now")?.scrollIntoView({ block: "nearest", behavior });
    }

    /** Publishes a request under an id, which is a new one if it has none. */
    send(device: string, request: Parameters, imageToImage: boolean): string {
        const random = crypto.getRandomValues(new Uint32Array(2));
        const id = String(request.id ?? `page-${[...random].map((part) => part.toString(36)).join("")}`);
        // Who looks at the page wants to see it come; devices of older versions do not know the key.
        const sees = this.fields.some((field) => field.key === "preview");
        const whole = { ...(sees ? { preview: true } : {}), ...request, id };
        this.devices.sent(device, id, whole);
        const topic = this.devices.topic(device, imageToImage ? "img2img" : "txt2img");
        const job = this.devices.job(device, id);
        const publish = () => {
            if (job.state !== "sent") return;
            this.#broker.publish(topic, toJson(whole), (code) => {
                if (code === 0 || job.state !== "sent") return;
                // A broker that was restarted does not know yet what the device listens to.
                if (code === NOBODY_LISTENS) return void this.#unheard.push({ device, publish });
                job.state = "rejected";
                job.error = { code: "mqtt", field: null, message: this.text.queue.notSent(code) };
                this.changed();
            });
        };
        publish();
        return id;
    }

    /** Asks again for a job whose end was missed. */
    askAgain(device: string, id: string): void {
        const request = this.devices.job(device, id).request;
        if (request) this.send(device, request, "init_images" in request);
    }

    /** The pictures of a job, in their order. */
    pictures(job: Job): Picture[] {
        return [...job.images.values()].sort((a, b) => a.number - b.number);
    }

    /** Jobs that have ended are not listed any more. */
    forget(device: Device): void {
        for (const job of device.jobs.values()) if (isOver(job)) device.jobs.delete(job.id);
        this.changed();
    }

    again(picture: Picture): void {
        const { id: _, seed: __, n_iter: ___, ...rest } = this.requestOf(picture);
        this.send(picture.device, rest, "init_images" in rest);
    }

    async vary(picture: Picture): Promise<void> {
        const { dataUrl } = await this.load(picture.blob);
        const kept = Object.entries(this.requestOf(picture)).filter(([key]) => !OF_THE_START.test(key));
        const { id: _, seed: __, n_iter: ___, ...rest } = Object.fromEntries(kept);
        const init_images = [dataUrl.replace(/^data:[^,]*,/, "")];
        this.send(picture.device, { ...rest, init_images, denoising_strength: VARIATION }, true);
    }

    /** Takes a picture into the form as what is started from; with `mask`, to draw on it. */
    async use(picture: Picture, mask: boolean): Promise<void> {
        const { dataUrl } = await this.load(picture.blob);
        const kept = Object.entries(this.requestOf(picture)).filter(([key]) => !OF_THE_START.test(key));
        const { seed: _, ...rest } = draftOf(this.fields, Object.fromEntries(kept));
        this.setDraft({ denoising_strength: "0.75", ...rest, init_images: dataUrl, mask: "" });
        this.open = mask ? { is: "mask" } : undefined;
        this.changed();
    }

    edit(picture: Picture): void {
        this.setDraft(draftOf(this.fields, { ...this.requestOf(picture), seed: picture.parameters?.seed }));
        this.open = undefined;
    }

    /** What was asked for, if the page knows, else what was painted. */
    requestOf(picture: Picture): Parameters {
        return picture.request ?? requestOfPainted(picture.parameters ?? {});
    }

    /** An image as the device takes it. */
    load(file: Blob) {
        return load(file, this.device?.info?.limits.packet ?? 1 << 20);
    }

    #readRefusal(): void {
        const job = this.device?.jobs.get(this.#formJob);
        if (!job?.error || job.state !== "rejected") return;
        this.#formJob = "";
        const { field, message } = job.error;
        const known = this.fields
            .flatMap((one) => [one, ...one.fields])
            .find((one) => one.path === field || one.key === field);
        this.note = known ? this.text.form.problems : message;
        if (!known) return;
        this.problems = { ...this.problems, [known.path]: { is: "device", message } };
        this.focus = "problem";
    }
}
