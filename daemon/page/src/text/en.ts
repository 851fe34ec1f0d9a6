// English, and what every other language has to say: `Text` is its type.

import type { Problem } from "../form/draft";
import type { Trouble } from "../mqtt/broker";

/** What reason codes of CONNACK and DISCONNECT mean, as far as somebody can do something about them. */
function refused(code: number, reason: string | undefined): string {
    const said = reason ? ` It says: ${reason}.` : "";
    switch (code) {
        case 0x86:
        case 0x87:
        case 0x8c:
            return `The broker refuses the login. Check the username and the password.${said}`;
        case 0x01:
        case 0x84:
            return `The broker does not speak MQTT 5, which this page needs. mosquitto does from version 1.6 on.${said}`;
        case 0x85:
            return `The broker refuses this page's client id, which begins with diffused-page-.${said}`;
        case 0x88:
        case 0x89:
            return `The broker is busy or being restarted.${said}`;
        case 0x8a:
            return `The broker has banned this client.${said}`;
        case 0x95:
            return `The broker refuses the request because it is too large: take a smaller image.${said}`;
        default:
            return `The broker refuses the connection, with MQTT's reason code 0x${code.toString(16)}.${said}`;
    }
}

export const en = {
    language: "English",
    skip: "Skip to the prompt",
    settings: "Settings",
    theme: "Colours",
    themes: { system: "As the system", light: "Light", dark: "Dark" },
    languageLabel: "Language",
    close: "Close",
    cancel: "Cancel",

    link: {
        connecting: "Connecting …",
        up: "Connected",
        down: "Not connected",
        again: (seconds: number) => `Next attempt in ${seconds} s.`,
        now: "Try now",
        denied: (filters: string) =>
            `The broker does not let this login read ${filters}. What is published there is missing here: its access rules must grant it.`,
    },
    trouble: (trouble: Trouble, url: string): string => {
        switch (trouble.why) {
            case "unreachable":
                return `Nothing answers at ${url}. Either the broker is off, or the address is wrong, or it has no WebSockets: mosquitto needs the lines “listener 9001” and “protocol websockets”.`;
            case "insecure":
                return `This page came over https, so the browser connects only to wss:// addresses. Open the page over http, or give the broker a certificate.`;
            case "address":
                return `${url} is not an address of a broker. It looks like ws://broker.local:9001.`;
            case "silent":
                return `Something answers at ${url}, but not as an MQTT 5 broker.`;
            case "refused":
                return refused(trouble.code, trouble.reason);
            case "ended":
                return trouble.code === 0x8e
                    ? "Another client took over this connection."
                    : refused(trouble.code, trouble.reason);
            case "lost":
                return "The connection to the broker is lost. What is being painted goes on.";
        }
    },

    setup: {
        title: "Connect to your broker",
        about: "This page talks to the MQTT broker that your devices use, over WebSockets. Nothing goes anywhere else.",
        url: "Broker's address",
        username: "Username",
        password: "Password",
        optional: "if the broker wants one",
        remember: "Remember the password in this browser",
        base: "First levels of the topics",
        connect: "Connect",
    },

    devices: {
        title: "Device",
        online: "online",
        offline: "offline",
        none: "No device has been seen yet",
        noneMore: (base: string) =>
            `The broker answers, but no device has published on ${base}/+/status. Start diffused on your board with this broker in its configuration; it appears here by itself.`,
        isOffline: (name: string) =>
            `${name} is offline. A request waits at the broker and is painted when the device is back.`,
    },

    now: {
        title: "Now",
        idle: "Nothing is being painted.",
        idleMore: "Write what you would like to see, and press Paint.",
        paused: "Paused: no further job is started.",
        step: (step: number, steps: number) => `Step ${step} of ${steps}`,
        image: (n: number, of: number) => `image ${n} of ${of}`,
        left: (time: string) => `about ${time} left`,
        stages: {
            text_encoder: "Reading the prompt",
            vae_encoder: "Reading the image",
            unet: "Painting",
            vae_decoder: "Developing",
            upscaler: "Enlarging",
        } as Record<string, string>,
        preview: "Preview of the picture that is being painted",
        progress: "Progress",
    },

    queue: {
        title: "Queue",
        empty: "No job waits.",
        pause: "Pause",
        resume: "Go on",
        cancelAll: "Cancel all",
        cancelJob: (what: string) => `Cancel “${what}”`,
        moveUp: "Move up",
        moveJobUp: (what: string) => `Move “${what}” up`,
        position: (n: number) => (n === 0 ? "next" : `${n} before it`),
        running: "being painted",
        sent: "sent, no answer yet",
        ended: "Ended",
        hide: "Clear the list",
        warnings: "Notes",
        states: {
            queued: "waits",
            running: "being painted",
            done: "done",
            failed: "failed",
            cancelled: "cancelled",
            rejected: "refused",
            unknown: "ended while this page was not connected",
            sent: "sent, no answer yet",
        },
        askAgain: "Fetch",
        askAgainMore: "The device sends what it has kept, or paints it again.",
        notSent: (code: number) =>
            code === 0x87
                ? "The broker does not let this login publish there: its access rules must grant it."
                : refused(code, undefined),
    },

    form: {
        title: "Paint",
        paint: "Paint",
        paintMore: "Add to the queue",
        reset: "Empty the form",
        more: "All settings",
        byDefault: "device's choice",
        yes: "yes",
        no: "no",
        problems: "Please look at the marked fields.",
        notConnected: "Not connected: the request is sent as soon as the connection is back.",
        sizes: { square: "Square", portrait: "Portrait", landscape: "Landscape" },
        shape: "Shape",
        random: "Random",
        groups: {
            picture: "Picture",
            sampling: "Sampling",
            start: "Start from an image",
            larger: "Larger",
            output: "File and display",
            job: "Job",
            other: "Other",
        },
        image: {
            choose: "Choose or drop an image",
            take: "Image to start from",
            remove: "Remove the image",
            mask: "Draw a mask",
            maskChange: "Change the mask",
            maskRemove: "Remove the mask",
            broken: "This file is not an image that the browser can read.",
        },
        labels: {
            prompt: "Prompt",
            negative_prompt: "Avoid",
            width: "Width",
            height: "Height",
            n_iter: "How many",
            seed: "Seed",
            steps: "Steps",
            cfg_scale: "Guidance",
            sampler_name: "Sampler",
            scheduler: "Noise schedule",
            eta: "New noise (eta)",
            clip_skip: "Clip skip",
            decoder: "Decoder",
            prompt_syntax: "Prompt syntax",
            guidance_interval: "Guided part",
            cache_interval: "Keep deep features for",
            init_images: "Image",
            denoising_strength: "Repainted share",
            fit: "Fit",
            background: "Background",
            mask: "Mask",
            mask_blur: "Blur of the mask",
            mask_blur_x: "Blur along x",
            mask_blur_y: "Blur along y",
            inpainting_fill: "Under the mask",
            inpainting_mask_invert: "Repaint what is not masked",
            inpaint_full_res: "Paint the masked part alone",
            inpaint_full_res_padding: "Pixels around it",
            keep_unmasked: "Keep the rest exactly",
            hires: "Second pass",
            "hires.scale": "Times as large",
            "hires.width": "Width",
            "hires.height": "Height",
            "hires.steps": "Steps",
            "hires.denoising_strength": "Repainted share",
            "hires.upscaler": "Enlarged by",
            "hires.prompt": "Prompt",
            "hires.negative_prompt": "Avoid",
            "hires.sampler_name": "Sampler",
            "hires.scheduler": "Noise schedule",
            "hires.cfg_scale": "Guidance",
            upscale: "Upscale",
            format: "File",
            output: "Display",
            "output.panel": "Panel",
            "output.width": "Width",
            "output.height": "Height",
            "output.palette": "Palette",
            "output.dither": "Dithering",
            "output.fit": "Fit",
            "output.format": "Bytes",
            "output.rotate": "Turned by",
            priority: "Priority",
            not_after: "Not after",
            id: "Name of the job",
            preview: "Preview",
        } as Record<string, string>,
        /** What a field does, in few words; where nothing is here, the contract's own are shown. */
        hints: {
            n_iter: "Pictures with the seeds that follow.",
            seed: "The same seed gives the same picture; random if empty.",
            width: "Pixels, a multiple of 8.",
            height: "Pixels, a multiple of 8.",
            steps: "More take longer.",
            cfg_scale: "How closely the prompt is followed; 1 halves the time.",
            sampler_name: "The way from noise to the picture.",
            scheduler: "How the steps lie between noise and picture.",
            eta: "How much new noise a step adds, 0 to 1.",
            clip_skip: "1 is the last layer; many anime models want 2.",
            prompt_syntax: "a1111 reads (weights:1.2); plain takes text as it is.",
            decoder: "tiny: nearly the same in a fraction of the time.",
            guidance_interval: "0.2, 0.9: the other steps take half the time.",
            cache_interval: "2 or 3 steps: much faster, nearly the same.",
            denoising_strength: "0 leaves the image as it is, 1 paints all anew.",
            fit: "How an image of another shape becomes this size.",
            background: "Under transparency and beside the image.",
            upscale: "In the end, by the model's upscaler.",
            mask_blur: "Pixels by which its edge is softened.",
            inpainting_fill: "What is there before it is repainted.",
            inpaint_full_res: "In the full size, then put back.",
            inpaint_full_res_padding: "32 if empty.",
            keep_unmasked: "To the bit; yes if empty.",
            format: "Both carry the parameters.",
            priority: "Larger goes first.",
            not_after: "A job that has not started by then is not painted.",
            id: "Up to 64 letters, digits, - _ and .",
            preview: "A small picture of how far it is, once a second.",
            mask_blur_x: "As the blur, if empty.",
            mask_blur_y: "As the blur, if empty.",
            inpainting_mask_invert: "No if empty.",
        } as Record<string, string>,
    },
    problem: (problem: Problem): string => {
        switch (problem.is) {
            case "missing":
                return "Write what to paint.";
            case "number":
                return "This is not a number.";
            case "integer":
                return "This must be a whole number.";
            case "below":
                return `At least ${problem.limit}.`;
            case "above":
                return `More than ${problem.limit}.`;
            case "atMost":
                return `At most ${problem.limit}.`;
            case "multiple":
                return `A multiple of ${problem.of}: ${problem.below} or ${problem.above}.`;
            case "long":
                return `At most ${problem.limit} bytes.`;
            case "form":
                if (problem.key === "id") return "Letters, digits, -, _ and ., at most 64 of them.";
                if (problem.key === "guidance_interval") return "Two numbers such as 0.2, 0.9.";
                return "A colour such as #ff8000, or white or black.";
            case "device":
                return problem.message;
        }
    },

    pictures: {
        title: "Pictures",
        empty: "Pictures appear here as they are painted, from the moment this page is open.",
        open: (prompt: string) => `Open “${prompt}”`,
        count: (n: number) => (n === 1 ? "1 picture" : `${n} pictures`),
        untitled: "untitled",
        again: "Again",
        againMore: "The same with another seed",
        vary: "Vary",
        varyMore: "Paint over it a little",
        use: "Use as start",
        mask: "Repaint a part",
        edit: "Edit",
        editMore: "Take its settings into the form",
        download: "Download",
        previous: "Newer picture",
        next: "Older picture",
        parameters: "Parameters",
        took: (time: string) => `Painted in ${time}`,
    },

    mask: {
        title: "What shall be repainted?",
        about: "Draw over it with a finger or the mouse. With a keyboard: arrows move the brush, Space paints, Backspace undoes.",
        canvas: "The image, to be drawn on",
        brush: "Brush",
        undo: "Undo",
        clear: "Clear",
        done: "Use this mask",
    },

    board: {
        title: "Board",
        memory: "Memory",
        of: (a: string, b: string) => `${a} of ${b}`,
        temperature: "Temperature",
        throttled: "slowed down, for heat or low voltage",
        disk: "Free disk",
        step: "A step takes",
        undelivered: "Undelivered messages",
        model: "Model",
        version: "Version",
        problems: "Problems",
        unknown: "The device has not said yet; it does so once a minute.",
        pressure: "Waiting for memory",
    },

    seconds: (s: number) =>
        s < 10
            ? `${s.toFixed(1)} s`
            : s < 90
              ? `${Math.round(s)} s`
              : s < 5400
                ? `${Math.round(s / 60)} min`
                : `${(s / 3600).toFixed(1)} h`,
};

export type Text = typeof en;
