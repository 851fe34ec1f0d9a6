// Deutsch.

import type { Problem } from "../form/draft";
import type { Trouble } from "../mqtt/broker";
import type { Text } from "./en";

function refused(code: number, reason: string | undefined): string {
    const said = reason ? ` Er meldet: ${reason}.` : "";
    switch (code) {
        case 0x86:
        case 0x87:
        case 0x8c:
            return `Der Broker lehnt die Anmeldung ab. Benutzername und Passwort prüfen.${said}`;
        case 0x01:
        case 0x84:
            return `Der Broker spricht kein MQTT 5, das diese Seite braucht. Mosquitto kann es ab Version 1.6.${said}`;
        case 0x85:
            return `Der Broker lehnt die Client-ID dieser Seite ab; sie beginnt mit diffused-page-.${said}`;
        case 0x88:
        case 0x89:
            return `Der Broker ist überlastet oder startet gerade neu.${said}`;
        case 0x8a:
            return `Der Broker hat diesen Client gesperrt.${said}`;
        case 0x95:
            return `Der Broker lehnt den Auftrag ab, weil er zu groß ist: ein kleineres Bild nehmen.${said}`;
        default:
            return `Der Broker lehnt die Verbindung ab, mit dem MQTT-Code 0x${code.toString(16)}.${said}`;
    }
}

export const de: Text = {
    language: "Deutsch",
    skip: "Zum Prompt springen",
    settings: "Einstellungen",
    theme: "Farben",
    themes: { system: "Wie das System", light: "Hell", dark: "Dunkel" },
    languageLabel: "Sprache",
    close: "Schließen",
    cancel: "Abbrechen",

    link: {
        connecting: "Verbindet …",
        up: "Verbunden",
        down: "Nicht verbunden",
        again: (seconds) => `Nächster Versuch in ${seconds} s.`,
        now: "Jetzt versuchen",
        denied: (filters) =>
            `Der Broker lässt diese Anmeldung ${filters} nicht lesen. Was dort gesendet wird, fehlt hier: Seine Zugriffsregeln müssen es erlauben.`,
    },
    trouble: (trouble: Trouble, url) => {
        switch (trouble.why) {
            case "unreachable":
                return `Unter ${url} antwortet niemand. Der Broker ist aus, die Adresse ist falsch, oder er hat keine WebSockets: Mosquitto braucht die Zeilen „listener 9001“ und „protocol websockets“.`;
            case "insecure":
                return `Diese Seite kam über https, darum verbindet sich der Browser nur mit wss://-Adressen. Die Seite über http öffnen oder dem Broker ein Zertifikat geben.`;
            case "address":
                return `${url} ist keine Adresse eines Brokers. Sie sieht so aus: ws://broker.local:9001.`;
            case "silent":
                return `Unter ${url} antwortet etwas, aber kein Broker mit MQTT 5.`;
            case "refused":
                return refused(trouble.code, trouble.reason);
            case "ended":
                return trouble.code === 0x8e
                    ? "Ein anderer Client hat diese Verbindung übernommen."
                    : refused(trouble.code, trouble.reason);
            case "lost":
                return "Die Verbindung zum Broker ist abgerissen. Was gerade gemalt wird, geht weiter.";
        }
    },

    setup: {
        title: "Mit dem Broker verbinden",
        about: "Diese Seite spricht über WebSockets mit dem MQTT-Broker, den die Geräte benutzen. Sonst geht nichts irgendwohin.",
        url: "Adresse des Brokers",
        username: "Benutzername",
        password: "Passwort",
        optional: "falls der Broker es verlangt",
        remember: "Passwort in diesem Browser merken",
        base: "Erste Ebenen der Topics",
        connect: "Verbinden",
    },

    devices: {
        title: "Gerät",
        online: "online",
        offline: "offline",
        none: "Noch kein Gerät gesehen",
        noneMore: (base) =>
            `Der Broker antwortet, aber kein Gerät hat etwas auf ${base}/+/status gesendet. Sobald diffused auf dem Board mit diesem Broker läuft, erscheint es hier von selbst.`,
        isOffline: (name) =>
            `${name} ist offline. Ein Auftrag wartet beim Broker und wird gemalt, wenn das Gerät wieder da ist.`,
    },

    now: {
        title: "Jetzt",
        idle: "Es wird nichts gemalt.",
        idleMore: "Beschreiben, was zu sehen sein soll, und auf „Malen“ tippen.",
        paused: "Angehalten: Kein weiterer Auftrag wird begonnen.",
        step: (step, steps) => `Schritt ${step} von ${steps}`,
        image: (n, of) => `Bild ${n} von ${of}`,
        left: (time) => `noch etwa ${time}`,
        stages: {
            text_encoder: "Liest den Prompt",
            vae_encoder: "Liest das Bild",
            unet: "Malt",
            vae_decoder: "Entwickelt",
            upscaler: "Vergrößert",
        },
        preview: "Vorschau des Bildes, das gerade gemalt wird",
        progress: "Fortschritt",
    },

    queue: {
        title: "Warteschlange",
        empty: "Kein Auftrag wartet.",
        pause: "Anhalten",
        resume: "Weiter",
        cancelAll: "Alle abbrechen",
        cancelJob: (what) => `„${what}“ abbrechen`,
        moveUp: "Nach oben",
        moveJobUp: (what) => `„${what}“ nach oben`,
        position: (n) => (n === 0 ? "als Nächstes" : `${n} davor`),
        running: "wird gemalt",
        sent: "gesendet, noch keine Antwort",
        ended: "Beendet",
        hide: "Liste leeren",
        warnings: "Hinweise",
        states: {
            queued: "wartet",
            running: "wird gemalt",
            done: "fertig",
            failed: "gescheitert",
            cancelled: "abgebrochen",
            rejected: "abgelehnt",
            unknown: "endete, während diese Seite nicht verbunden war",
            sent: "gesendet, noch keine Antwort",
        },
        askAgain: "Holen",
        askAgainMore: "Das Gerät sendet, was es noch hat, oder malt es noch einmal.",
        notSent: (code) =>
            code === 0x87
                ? "Der Broker lässt diese Anmeldung dort nichts senden: Seine Zugriffsregeln müssen es erlauben."
                : refused(code, undefined),
    },

    form: {
        title: "Malen",
        paint: "Malen",
        paintMore: "Hinten anstellen",
        reset: "Formular leeren",
        more: "Alle Einstellungen",
        byDefault: "wie das Gerät",
        yes: "ja",
        no: "nein",
        problems: "Bitte die markierten Felder ansehen.",
        notConnected: "Nicht verbunden: Der Auftrag geht hinaus, sobald die Verbindung wieder da ist.",
        sizes: { square: "Quadrat", portrait: "Hochformat", landscape: "Querformat" },
        shape: "Form",
        random: "Zufall",
        groups: {
            picture: "Bild",
            sampling: "Verfahren",
            start: "Von einem Bild ausgehen",
            larger: "Größer",
            output: "Datei und Display",
            job: "Auftrag",
            other: "Weiteres",
        },
        image: {
            choose: "Bild wählen oder hierher ziehen",
            take: "Bild, von dem ausgegangen wird",
            remove: "Bild entfernen",
            mask: "Maske zeichnen",
            maskChange: "Maske ändern",
            maskRemove: "Maske entfernen",
            broken: "Diese Datei ist kein Bild, das der Browser lesen kann.",
        },
        labels: {
            prompt: "Prompt",
            negative_prompt: "Vermeiden",
            width: "Breite",
            height: "Höhe",
            n_iter: "Wie viele",
            seed: "Seed",
            steps: "Schritte",
            cfg_scale: "Führung",
            sampler_name: "Sampler",
            scheduler: "Rauschplan",
            eta: "Neues Rauschen (eta)",
            clip_skip: "Clip Skip",
            decoder: "Decoder",
            prompt_syntax: "Prompt-Syntax",
            guidance_interval: "Geführter Teil",
            cache_interval: "Tiefes behalten für",
            init_images: "Bild",
            denoising_strength: "Anteil, der neu ist",
            fit: "Einpassen",
            background: "Hintergrund",
            mask: "Maske",
            mask_blur: "Weichheit der Maske",
            mask_blur_x: "Weichheit waagrecht",
            mask_blur_y: "Weichheit senkrecht",
            inpainting_fill: "Unter der Maske",
            inpainting_mask_invert: "Malen, was nicht maskiert ist",
            inpaint_full_res: "Nur den maskierten Teil malen",
            inpaint_full_res_padding: "Pixel ringsum",
            keep_unmasked: "Den Rest genau erhalten",
            hires: "Zweiter Durchgang",
            "hires.scale": "Vergrößerung",
            "hires.width": "Breite",
            "hires.height": "Höhe",
            "hires.steps": "Schritte",
            "hires.denoising_strength": "Anteil, der neu ist",
            "hires.upscaler": "Vergrößert durch",
            "hires.prompt": "Prompt",
            "hires.negative_prompt": "Vermeiden",
            "hires.sampler_name": "Sampler",
            "hires.scheduler": "Rauschplan",
            "hires.cfg_scale": "Führung",
            upscale: "Hochskalieren",
            format: "Datei",
            output: "Display",
            "output.panel": "Panel",
            "output.width": "Breite",
            "output.height": "Höhe",
            "output.palette": "Palette",
            "output.dither": "Rasterung",
            "output.fit": "Einpassen",
            "output.format": "Bytes",
            "output.rotate": "Gedreht um",
            priority: "Priorität",
            not_after: "Nicht nach",
            id: "Name des Auftrags",
            preview: "Vorschau",
        },
        hints: {
            n_iter: "Bilder mit den folgenden Seeds.",
            seed: "Derselbe Seed gibt dasselbe Bild; leer ist er zufällig.",
            width: "Pixel, ein Vielfaches von 8.",
            height: "Pixel, ein Vielfaches von 8.",
            steps: "Mehr dauern länger.",
            cfg_scale: "Wie genau dem Prompt gefolgt wird; 1 halbiert die Zeit.",
            sampler_name: "Der Weg vom Rauschen zum Bild.",
            scheduler: "Wie die Schritte zwischen Rauschen und Bild liegen.",
            eta: "Wie viel neues Rauschen ein Schritt bringt, 0 bis 1.",
            clip_skip: "1 ist die letzte Schicht; viele Anime-Modelle wollen 2.",
            prompt_syntax: "a1111 liest (Gewichte:1.2); plain nimmt Text, wie er ist.",
            decoder: "tiny: fast dasselbe in einem Bruchteil der Zeit.",
            guidance_interval: "0.2, 0.9: die anderen Schritte brauchen die halbe Zeit.",
            cache_interval: "2 oder 3 Schritte: viel schneller, fast dasselbe.",
            denoising_strength: "0 lässt das Bild, wie es ist, 1 malt alles neu.",
            fit: "Wie ein Bild anderer Form diese Größe bekommt.",
            background: "Unter Transparenz und neben dem Bild.",
            upscale: "Am Ende, durch den Upscaler des Modells.",
            mask_blur: "Um so viele Pixel ist ihr Rand weich.",
            inpainting_fill: "Was vor dem Malen dort ist.",
            inpaint_full_res: "In voller Größe, dann zurückgelegt.",
            inpaint_full_res_padding: "Leer: 32.",
            keep_unmasked: "Bitgenau; leer: ja.",
            format: "Beide enthalten die Parameter.",
            priority: "Größere kommen zuerst.",
            not_after: "Danach wird nicht mehr begonnen.",
            id: "Bis zu 64 Buchstaben, Ziffern, - _ und .",
            preview: "Ein kleines Bild vom Stand, einmal in der Sekunde.",
            mask_blur_x: "Leer: wie die Weichheit.",
            mask_blur_y: "Leer: wie die Weichheit.",
            inpainting_mask_invert: "Leer: nein.",
        },
    },
    problem: (problem: Problem) => {
        switch (problem.is) {
            case "missing":
                return "Beschreiben, was gemalt werden soll.";
            case "number":
                return "Das ist keine Zahl.";
            case "integer":
                return "Das muss eine ganze Zahl sein.";
            case "below":
                return `Mindestens ${problem.limit}.`;
            case "above":
                return `Mehr als ${problem.limit}.`;
            case "atMost":
                return `Höchstens ${problem.limit}.`;
            case "multiple":
                return `Ein Vielfaches von ${problem.of}: ${problem.below} oder ${problem.above}.`;
            case "long":
                return `Höchstens ${problem.limit} Bytes.`;
            case "form":
                if (problem.key === "id") return "Buchstaben (ohne Umlaute), Ziffern, -, _ und ., höchstens 64.";
                if (problem.key === "guidance_interval") return "Zwei Zahlen wie 0.2, 0.9.";
                return "Eine Farbe wie #ff8000, oder white oder black.";
            case "device":
                return problem.message;
        }
    },

    pictures: {
        title: "Bilder",
        empty: "Hier erscheinen die Bilder, die gemalt werden, solange diese Seite offen ist.",
        open: (prompt) => `„${prompt}“ öffnen`,
        count: (n) => (n === 1 ? "1 Bild" : `${n} Bilder`),
        untitled: "ohne Titel",
        again: "Noch eins",
        againMore: "Dasselbe mit anderem Seed",
        vary: "Abwandeln",
        varyMore: "Ein wenig übermalen",
        use: "Als Anfang nehmen",
        mask: "Einen Teil neu malen",
        edit: "Bearbeiten",
        editMore: "Seine Einstellungen ins Formular übernehmen",
        download: "Herunterladen",
        previous: "Neueres Bild",
        next: "Älteres Bild",
        parameters: "Parameter",
        took: (time) => `Gemalt in ${time}`,
    },

    mask: {
        title: "Was soll neu gemalt werden?",
        about: "Mit Finger oder Maus darüber zeichnen. Mit der Tastatur: Pfeile bewegen den Pinsel, Leertaste malt, Rücktaste nimmt zurück.",
        canvas: "Das Bild zum Daraufzeichnen",
        brush: "Pinsel",
        undo: "Zurück",
        clear: "Leeren",
        done: "Diese Maske nehmen",
    },

    board: {
        title: "Board",
        memory: "Speicher",
        of: (a, b) => `${a} von ${b}`,
        temperature: "Temperatur",
        throttled: "gebremst, wegen Hitze oder Unterspannung",
        disk: "Frei auf der Karte",
        step: "Ein Schritt dauert",
        undelivered: "Nicht zugestellt",
        model: "Modell",
        version: "Version",
        problems: "Probleme",
        unknown: "Das Gerät hat noch nichts gemeldet; es tut das jede Minute.",
        pressure: "Wartet auf Speicher",
    },

    seconds: (s) => {
        const number = (value: number, digits: number) => value.toFixed(digits).replace(".", ",");
        return s < 10
            ? `${number(s, 1)} s`
            : s < 90
              ? `${Math.round(s)} s`
              : s < 5400
                ? `${Math.round(s / 60)} min`
                : `${number(s / 3600, 1)} h`;
    },
};
