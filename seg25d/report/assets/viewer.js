// The 3D viewer: NiiVue as packaged by ipyniivue, used without Jupyter through models of the anywidget protocol (get,
// set, on, off, save_changes, send, widget_manager), which is the stable interface of that package.
(() => {
  "use strict";

  const OVERLAYS = ["truth", "prediction", "difference"];
  const SLICES_AND_SOLID = 3;
  const SOLID = 4;

  class Model {
    constructor(values, family) {
      this.values = values;
      this.family = family;
      this.listeners = new Map();
      this.widget_manager = { get_model: async (id) => family.get(id) };
    }
    get(key) { return this.values[key]; }
    set(key, value) { this.values[key] = value; }
    on(event, callback) { this.listeners.set(event, [...(this.listeners.get(event) || []), callback]); }
    off(event, callback) {
      this.listeners.set(event, callback ? (this.listeners.get(event) || []).filter((each) => each !== callback) : []);
    }
    save_changes() {}
    send() {}
    onChange() {}
    change(key, value) {
      this.values[key] = value;
      return Promise.all((this.listeners.get(`change:${key}`) || []).map((callback) => callback()));
    }
    message(type, data = []) {
      return Promise.all((this.listeners.get("msg:custom") || []).map((callback) => callback({ type, data }, [])));
    }
  }

  const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  const unpacked = async (text) => {
    const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).blob();
  };

  const loadWidget = async () => {
    const code = new Blob([await unpacked(document.getElementById("niivue-code").textContent.trim())], {
      type: "text/javascript",
    });
    const address = URL.createObjectURL(code);
    try {
      return (await import(address)).default;
    } finally {
      URL.revokeObjectURL(address);
    }
  };

  const volumeModel = (family, id, volume, opacity) => {
    const model = new Model(
      {
        id,
        path: {},
        url: "",
        data: bytesOf(volume.nifti),
        paired_img_path: {},
        paired_img_url: "",
        paired_img_data: null,
        name: `${id}.nii.gz`,
        colormap: "gray",
        colormap_negative: "",
        colormap_label: volume.labels || null,
        colormap_type: 0,
        colormap_invert: false,
        colorbar_visible: false,
        opacity,
        cal_min: volume.range ? volume.range[0] : null,
        cal_max: volume.range ? volume.range[1] : null,
        cal_min_neg: null,
        cal_max_neg: null,
        frame_4d: 0,
        modulation_image: null,
        modulate_alpha: 0,
      },
      family,
    );
    family.set(id, model);
    return model;
  };

  const start = async (root) => {
    const cases = JSON.parse(document.getElementById("viewer-cases").textContent);
    const stage = root.querySelector(".stage");
    const state = root.querySelector("[role=status]");
    const chooser = root.querySelector("select[name=case]");
    const opacity = root.querySelector("input[name=opacity]");
    const family = new Map();
    const chosen = (name) => root.querySelector(`input[name=${name}]:checked`).value;
    let shown = [];

    // NiiVue reports this in a promise that cannot be caught.
    if (!document.createElement("canvas").getContext("webgl2")) throw new Error("the browser has none or it is off");
    const widget = await loadWidget();
    const model = new Model(
      {
        id: "viewer",
        this_model_id: "viewer",
        volumes: [],
        meshes: [],
        height: stage.clientHeight,
        opts: {
          backColor: [0, 0, 0, 1],
          crosshairColor: [1, 1, 0.4, 0.8],
          crosshairWidth: 0.5,
          isColorbar: false,
          loadingText: "",
          multiplanarShowRender: 1,
          show3Dcrosshair: true,
          // As in the pictures of the page: the patient's right on the left, and the nose on the left.
          isRadiologicalConvention: true,
          sagittalNoseLeft: true,
          sliceType: SLICES_AND_SOLID,
          isAntiAlias: true,
        },
        background_masks_overlays: 0,
        draw_lut: null,
        draw_opacity: 0.8,
        draw_fill_overwrites: true,
        graph: {},
        scene: {},
        overlay_outline_width: 0,
        overlay_alpha_shader: 1,
      },
      family,
    );
    family.set("viewer", model);

    const opacityOf = (name) => (name === chosen("overlay") ? Number(opacity.value) / 100 : 0);

    const showCase = async () => {
      const number = Number(chooser.value);
      state.textContent = `loading ${cases[number].name}`;
      shown = ["image", ...OVERLAYS].map((name) => {
        const id = `${name}-${number}`;
        const strength = name === "image" ? 1 : opacityOf(name);
        const known = family.get(id);
        if (known) {
          known.set("opacity", strength);
          return known;
        }
        return volumeModel(family, id, cases[number].volumes[name], strength);
      });
      await model.change("volumes", shown.map((each) => `IPY_MODEL_${each.get("id")}`));
      await model.message("draw_scene");
      state.textContent = cases[number].caption;
      root.dataset.case = cases[number].name;
    };

    const showOverlay = async () => {
      for (const [number, name] of OVERLAYS.entries()) await shown[number + 1].change("opacity", opacityOf(name));
    };

    const showLayout = async () => {
      const sliceType = chosen("layout") === "solid" ? SOLID : SLICES_AND_SOLID;
      await model.change("opts", { ...model.get("opts"), sliceType });
      await model.message("draw_scene");
    };

    await widget.initialize({ model });
    await widget.render({ model, el: stage });
    const canvas = stage.querySelector("canvas");
    canvas.tabIndex = 0;
    canvas.setAttribute("aria-label", "three slices and a solid view of the chosen case");
    canvas.setAttribute("role", "img");
    await showCase();
    chooser.addEventListener("change", showCase);
    opacity.addEventListener("input", showOverlay);
    root.querySelectorAll("input[name=overlay]").forEach((each) => each.addEventListener("change", showOverlay));
    root.querySelectorAll("input[name=layout]").forEach((each) => each.addEventListener("change", showLayout));
    root.dataset.ready = "true";
  };

  window.addEventListener("DOMContentLoaded", () => {
    const root = document.getElementById("viewer");
    if (!root) return;
    const begin = () =>
      start(root).catch((problem) => {
        root.querySelector(".stage").hidden = true;
        root.querySelector(".controls").disabled = true;
        root.querySelector("[role=status]").textContent =
          `The viewer cannot start here. It needs WebGL 2 (${problem.message}).`;
      });
    const watcher = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      watcher.disconnect();
      begin();
    });
    watcher.observe(root);
  });
})();
